"""A small task and the weights of a small ViT on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_vtab import make_task, write_base, write_config


@pytest.fixture(scope='session')
def task(tmp_path_factory) -> Path:
    """24 training, 8 validation and 6 test images."""
    return make_task(tmp_path_factory.mktemp('kitti'))


@pytest.fixture(scope='session')
def base(task, tmp_path_factory) -> Path:
    """The weights of a small ViT."""
    return write_base(task, tmp_path_factory.mktemp('base') / 'base.pth')


@pytest.fixture
def config(task, base, tmp_path, monkeypatch) -> Path:
    """SPT-LoRA on the task, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    extra = "model['petl'] = dict(spt=dict(file='spt.safetensors', rank=2, budget=None))\n"
    return write_config(task, tmp_path / 'small.py', base=base, extra=extra)
