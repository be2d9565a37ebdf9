"""Fixtures: clips that are drawn once, and a bundle that classifies videos."""

from __future__ import annotations

from pathlib import Path

import predicting
import pytest

from vpetl_mm.datasets.demo_clips import make_demo_clips


@pytest.fixture(scope='session')
def drawn_clips(tmp_path_factory) -> list[Path]:
    """Nine clips of the demo, 32 x 32."""
    folder = tmp_path_factory.mktemp('drawn')
    make_demo_clips(folder, dict(target_test=9), progress=False)
    return sorted(folder.rglob('*.mp4'))


@pytest.fixture(scope='session')
def video_run(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A config for videos, a checkpoint and their bundle."""
    return predicting.made(tmp_path_factory.mktemp('videos'), predicting.VIDEOS)


@pytest.fixture(scope='session')
def video_bundle(video_run) -> Path:
    """A bundle for videos."""
    return video_run[-1]
