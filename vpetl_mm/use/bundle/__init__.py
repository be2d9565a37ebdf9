"""Bundles: what a run trained, in one file."""
