"""Fixtures: an empty folder, a small task, and the weights of a small ViT."""

import pytest
from small_vtab import base, config, task  # noqa: F401


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> None:
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)
