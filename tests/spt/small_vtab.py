"""One small task of VTAB-1k on disk, and configs that learn it with a small ViT."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vpetl_cli.command import run
from vpetl_mm import build_model
from vpetl_mm.config import load_config

REPO = Path(__file__).parents[2]
TOOL = REPO / 'tools/sensitivity.py'
COUNTS = dict(train800=24, val200=8, test=6)
CONFIG = """\
_base_ = '{repo}/configs/vit_{method}_vtabkitti_mae.py'
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
    """Run tools/sensitivity.py in this process; its exit status."""
    spec = importlib.util.spec_from_file_location('sensitivity', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run(module.main, module.parser, [str(a) for a in argv])
