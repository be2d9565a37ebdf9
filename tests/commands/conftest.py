"""Fixtures: an empty folder, a small task, and the weights of a small ViT."""

from small_vtab import base, config, task  # noqa: F401
