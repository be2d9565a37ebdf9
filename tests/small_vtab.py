"""The tasks of VTAB-1k; a small one on disk, and configs that learn it with a small ViT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tools
from tools import REPO
from vpetl_mm import build_model
from vpetl_mm.config import load_config

# task -> classes, of the benchmark's paper, by group
NATURAL = dict(cifar=100, caltech101=102, dtd=47, oxford_flowers102=102, svhn=10, sun397=397, oxford_iiit_pet=37)
SPECIALIZED = dict(patch_camelyon=2, eurosat=10, resisc45=45, diabetic_retinopathy=5)
STRUCTURED = dict(clevr_count=8, clevr_dist=6, dmlab=6, kitti=4, dsprites_loc=16, dsprites_ori=16)
STRUCTURED |= dict(smallnorb_azi=18, smallnorb_ele=9)
CLASSES = NATURAL | SPECIALIZED | STRUCTURED
SIZES = dict(sptlora='', sptadapter='', full='', fc='', bitfit='', vpt='', adaptformer='_b8', lora='_r8')
# of further papers: the size in the name, and what is trained on ViT-B beside the head, by the papers' formulas
FURTHER = dict(
    ssf=('', 12 * 22 * 768 + 4 * 768),
    repadapter=('_b8', 24 * (768 * 8 + 8 + 768 * 8 // 2 + 768)),
    dora=('_r16', 24 * (16 * 1536 + 768)),
    facttt=('_r16', 2 * 768 * 16 + 144 * 16**2),
    facttk=('_r32', 2 * 768 * 32 + 32**3 + 144 * 32),
    vera=('_r256', 24 * (256 + 768)),
    kadaptation=('', 12 * (4 * 768 + 768) + 4 * 32**2),
    adapterplus=('_b8', 12 * (2 * 768 * 8 + 8 + 2 * 768)),
    convpass=('_b8', 24 * (2 * 768 * 8 + 2 * 8 + 768 + 9 * 8**2)),
    mona=('_b64', 24 * (133 * 768 + 9728)),
    compacter=('_b24', 24 * ((768 + 24) * 2 + 24 + 768) + 4**3 + 25 * 2 * 768),
    mam=('_b512', 12 * (2 * 30 * 768 + 2 * 768 * 512 + 512 + 768)),
    mhpa=('_b30', 12 * (2 * 30 * 768 + 2 * 768)),
    dtl=('_r2', 2 * 768 * 2 * 12),
)
PRETRAINED = ('in21k', 'mae', 'mocov3')
# what a method trains on ViT-B beside the head, which has 769 parameters per class
WITHOUT_HEAD = dict(full=85_798_656, fc=0, bitfit=102_912, vpt=12 * 50 * 768)
WITHOUT_HEAD |= dict(adaptformer=12 * (2 * 768 * 8 + 8 + 768), lora=12 * 4 * 768 * 8)
COUNTS = dict(train800=24, val200=8, test=6)
CONFIG = """\
_base_ = '{repo}/configs/vtab1k/vit_{method}_vtab.py'
vtab_task = 'kitti'
vtab_pretrain = 'mae'
_arch = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=64)
_load = dict(type='LoadImageFromFile', imdecode_backend='pillow')
_data = dict(data_root='{root}', pipeline=[_load, dict(type='PackInputs')], serialize_data=False)
_loader = dict(num_workers=0, dataset=_data)
model = dict(base={base}, backbone=dict(arch=_arch, img_size=16, patch_size=8), head=dict(in_channels=16))
train_dataloader = dict(batch_size=8, **_loader)
val_dataloader = _loader
test_dataloader = _loader
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=2)
"""


def name_of(method: str, task: str, pretrain: str = 'in21k') -> str:
    """The experiment of a task."""
    size = FURTHER[method][0] if method in FURTHER else SIZES[method]
    return f'vit_{method}_vtab{task.removeprefix("oxford_").replace("_", "")}{size}_{pretrain}'


def make_task(root: Path) -> Path:
    """Images of 16 x 16 whose mean colour says their class, with the three lists."""
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (root / 'images' / name).mkdir(parents=True)
        rows = [f'images/{name}/{i}.png {i % 4}' for i in range(count)]
        for row in rows:
            path, _, label = row.partition(' ')
            picture = rng.integers(0, 128, (16, 16, 3)) + np.array([int(label) & 1, int(label) >> 1, 0]) * 127
            Image.fromarray(picture.astype(np.uint8)).save(root / path)
        (root / f'{name}.txt').write_text('\n'.join(rows) + '\n')
    return root


def write_config(root: Path, file: Path, method: str = 'sptlora', base: Any = None, extra: str = '') -> Path:
    """A config of the small task; ``extra`` is appended."""
    text = CONFIG.format(repo=REPO, method=method, root=root, base=f'dict(file={str(base)!r})' if base else None)
    file.write_text(text + extra)
    return file


def write_base(root: Path, file: Path, seed: int = 7) -> Path:
    """Weights for the small ViT."""
    cfg = load_config(write_config(root, file.with_suffix('.py'), 'fc'), {'randomness.seed': seed})
    torch.save(build_model(cfg, init_weights=True).backbone.state_dict(), file)
    return file


def call(*argv: object) -> int:
    """Run tools/sensitivity.py in this process and return its exit status."""
    return tools.call('sensitivity', *argv)


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
