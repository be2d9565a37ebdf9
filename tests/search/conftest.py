"""The clips of a small search."""

from __future__ import annotations

from pathlib import Path

import pytest
from searching import write_experiment


@pytest.fixture(scope='session')
def experiment(tmp_path_factory) -> Path:
    """The config of a small experiment with a ``search``."""
    return write_experiment(tmp_path_factory.mktemp('searched'))
