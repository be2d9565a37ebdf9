"""A small experiment, which inherits the demo's config, and what its runs leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine import Config

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
QUICK = {f'{loader}_dataloader__num_workers': 0 for loader in ('train', 'val', 'test')}
# AdamW would divide rounding errors by the size of vanishing gradients
SGD = {'optim_wrapper__optimizer': dict(type='SGD', lr=0.1, _delete_=True)}
# all frames of the demo's clips, for configs of other data sets
PIPELINE = """\
_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
"""


def write_config(root: Path, path: Path, method: str = 'bapat', extra: str = '') -> Path:
    """A config file of the small experiment; ``extra`` is appended."""
    rate = 'optim_wrapper = dict(optimizer=dict(lr=7e-3))\n' if method == 'bapat' else ''  # whatever the demo's is
    path.write_text(CONFIG.format(repo=REPO, root=root, method=method) + rate + extra)
    return path


def prepared(
    config: Path,
    work_dir: Path | str,
    resume: str | None = None,
    resume_with: str | None = None,
    amp: bool = False,
    overwrite: bool = False,
    launcher: str = 'none',
    **cfg_options: Any,
) -> Config:
    """The config ready to run; ``__`` in the name of an option is a dot."""
    dotted = {k.replace('__', '.'): v for k, v in cfg_options.items()}
    return prepare(config, Options(str(work_dir), resume, amp, launcher, dotted, resume_with, overwrite))


def held_out(root: Path) -> dict[str, Any]:
    """Options that hold a quarter of the training clips out, and validate on them."""
    dataset = dict(ann_file=f'{root}/target_train.txt', data_prefix=dict(video=str(root)))
    where = {f'val_dataloader__dataset__{key}': value for key, value in dataset.items()}
    return {'holdout__fraction': 0.25, 'val_dataloader__batch_size': 4, **where, **QUICK}


def content(file: Path) -> dict[str, Any]:
    """The content of a checkpoint."""
    return torch.load(file, map_location='cpu', weights_only=True)


def adapter(run: Path, epoch: int = 2) -> dict[str, torch.Tensor]:
    """The tensors of a run's adapter file."""
    return content(run / f'adapter_epoch_{epoch}.pth')['state_dict']


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerances: float) -> None:
    """Tensors under the same keys are the same, bit for bit unless tolerances are given."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        limits = tolerances or dict(atol=0, rtol=0)
        torch.testing.assert_close(other[key], value, **limits, msg=lambda said, key=key: f'{key}: {said}')
