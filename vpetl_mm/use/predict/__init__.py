"""Classifies files, arrays and a camera with a bundle."""
