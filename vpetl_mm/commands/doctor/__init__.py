"""The checks of tools/doctor.py, one function each, which returns a verdict."""
