"""A small experiment on real files: demo clips, a pre-trained base on disk, a config that inherits the demo's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_experiment import write_config

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.engine.experiment import Options, prepare


@pytest.fixture(scope='session')
def clips(tmp_path_factory) -> Path:
    """24 training and 12 test clips with their lists, and the weights of a backbone."""
    root = tmp_path_factory.mktemp('clips')
    make_demo_clips(root, dict(target_train=24, target_test=12), progress=False)
    cfg = load_config(write_config(root, root / 'base.py'), {'model.base': None, 'randomness.seed': 7})
    model = build_model(cfg, init_weights=True)
    with model.plan.detached():
        torch.save(model.backbone.state_dict(), root / 'base.pth')
    return root


@pytest.fixture
def config(clips, tmp_path) -> Path:
    """The small BAPAT experiment."""
    return write_config(clips, tmp_path / 'small.py')


@pytest.fixture
def ready(config, tmp_path):
    """Makes the small experiment's config ready to run, with options."""

    def make(
        work_dir: str = 'run',
        resume: str | None = None,
        amp: bool = False,
        resume_with: str | None = None,
        overwrite: bool = False,
        **cfg_options,
    ):
        dotted = {k.replace('__', '.'): v for k, v in cfg_options.items()}
        options = Options(str(tmp_path / work_dir), resume, amp, 'none', dotted, resume_with, overwrite)
        return prepare(config, options)

    return make
