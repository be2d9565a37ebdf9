"""What was trained, in one file: written, read, checked, tested."""
