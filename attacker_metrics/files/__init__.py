"""Files that others wrote -> what they hold, or a clear error; our own sources -> what tells them apart."""
