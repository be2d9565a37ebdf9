"""Hooks of mmengine's Runner, one per file."""
