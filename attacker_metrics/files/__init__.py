"""Files that others wrote -> what they hold, or a clear error; our own: what may be written, whole, and safe to show."""
