"""All tests of weights run in an empty folder."""

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    """The warnings about base weights."""
    lines: list[str] = []
    monkeypatch.setattr('vpetl_mm.weights.base.print_log', lambda text, *_: lines.append(text))
    return lines
