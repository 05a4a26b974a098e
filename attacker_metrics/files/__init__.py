"""What every part of the package does with files: which may be written, written whole, tables, and text made safe to show."""
