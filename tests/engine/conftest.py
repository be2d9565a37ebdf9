"""A small experiment on real files: demo clips, a pre-trained base on disk, a config that inherits the demo's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from sklearn.datasets import load_digits
from small_experiment import REPO, prepared, write_config

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import make_demo_clips

IMAGES = """\
_base_ = '{repo}/configs/vit_{method}_mae.py'
_arch = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
_pil = dict(type='NumpyToPIL', to_rgb=False)
_resize = dict(type='torchvision/Resize', size=16, interpolation='bicubic')
_loader = dict(num_workers=0, dataset=dict(data_root='{root}', pipeline=[_pil, _resize, dict(type='PackInputs')]))
model = dict(base=None, backbone=dict(arch=_arch, img_size=16, patch_size=4), head=dict(in_channels=32))
train_dataloader = dict(batch_size=32, **_loader)
val_dataloader = _loader
test_dataloader = _loader
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(_delete_=True, type='AdamW', lr=5e-3))
auto_scale_lr = dict(enable=False)
train_cfg = dict(max_epochs=4)
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


@pytest.fixture
def config(clips, tmp_path) -> Path:
    """The small BAPAT experiment."""
    return write_config(clips, tmp_path / 'small.py')


@pytest.fixture
def ready(config, tmp_path):
    """Makes the small experiment's config ready to run, with options."""

    def make(work_dir: str = 'run', *args, **options):
        return prepared(config, tmp_path / work_dir, *args, **options)

    return make


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """Real handwritten digits, 320 to train on and 100 to test on, in the files of SVHN."""
    root = tmp_path_factory.mktemp('svhn')
    images, labels = load_digits(return_X_y=True)
    grey = np.kron(images.reshape(-1, 8, 8), np.ones((4, 4))) / 16 * 255
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    for name, part in (('train', slice(0, 320)), ('test', slice(320, 420))):
        y = np.where(labels[part] == 0, 10, labels[part]).astype(np.uint8)
        scipy.io.savemat(root / f'{name}_32x32.mat', {'X': rgb[part].transpose(1, 2, 3, 0), 'y': y[:, None]})
    return root


@pytest.fixture
def run(digits, tmp_path):
    """Prepares ``vit_<method>_mae`` made small, with options."""

    def make(method: str, folder: str = 'run', *args, **options):
        path = tmp_path / f'{method}.py'
        path.write_text(IMAGES.format(repo=REPO, method=method, root=digits))
        return prepared(path, tmp_path / folder, *args, **options)

    return make
