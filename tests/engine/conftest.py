"""A small experiment on real files: demo clips, a pre-trained base on disk, a config that inherits the demo's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.engine.experiment import Options, prepare

REPO = Path(__file__).parents[2]

CONFIG = """\
_base_ = '{repo}/configs/demo_{method}.py'
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(ann_file='{root}/target_train.txt', data_prefix=dict(video='{root}')))
test_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(ann_file='{root}/target_test.txt', data_prefix=dict(video='{root}')))
model = dict(
    base=dict(file='{root}/base.pth'),
    backbone=dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])),
    cls_head=dict(in_channels=16))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
auto_scale_lr = dict(enable=False, base_batch_size=256)
train_cfg = dict(max_epochs=2)
"""


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


def write_config(root: Path, path: Path, method: str = 'bapat', extra: str = '') -> Path:
    """A config file of the small experiment; ``extra`` is appended."""
    path.write_text(CONFIG.format(repo=REPO, root=root, method=method) + extra)
    return path


@pytest.fixture
def config(clips, tmp_path) -> Path:
    """The small BAPAT experiment."""
    return write_config(clips, tmp_path / 'small.py')


@pytest.fixture
def ready(config, tmp_path):
    """Makes the small experiment's config ready to run, with options."""

    def make(work_dir: str = 'run', resume: str | None = None, amp: bool = False, **cfg_options):
        dotted = {k.replace('__', '.'): v for k, v in cfg_options.items()}
        return prepare(config, Options(str(tmp_path / work_dir), resume, amp, cfg_options=dotted))

    return make
