"""Every test of the command runs in an empty folder, with the source beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trees

import vpetl_mm  # noqa: F401


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    return tmp_path / 'here'


@pytest.fixture
def refused(here, capsys):
    """Call the command, which must refuse with one sentence and leave every file as it was; the sentence."""

    def check(*argv: object) -> str:
        before = trees.snapshot(here, here.parent)
        assert trees.call(*argv) == 2
        assert trees.snapshot(here, here.parent) == before, 'something was written'
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith('warning: ')]
        assert len(said) == 1 and said[0].startswith('error: ')
        return said[0]

    return check
