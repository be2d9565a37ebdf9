"""Small bundles with random weights, and the runs that they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import randomised

from vpetl_mm import build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, trained_meta
from vpetl_mm.use.bundle.packing import pack

REPO = Path(__file__).parents[2]
CLIPS = REPO.parent / 'shared/data/clips'
CLASSES = ['lifting', 'pushing', 'opening']
# two clips in time x three crops in space, their logits averaged
VIDEOS = """\
_base_ = '{repo}/configs/_base_/small_video.py'
test_pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', clip_len=4, frame_interval=3, num_clips=2, test_mode=True),
    dict(type='DecodeVideo'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_dataloader = dict(
    batch_size=5, num_workers=0,
    dataset=dict(
        ann_file='test.txt', data_prefix=dict(video=''), num_classes=3, metainfo=None, pipeline=test_pipeline))
model = dict(
    backbone=dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])),
    cls_head=dict(in_channels=16, num_classes=3))
"""
IMAGES = """\
_base_ = '{repo}/configs/vit_full_cifar100_mae.py'
_arch = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
model = dict(
    base=None, backbone=dict(arch=_arch, img_size=16, patch_size=4), head=dict(in_channels=32, num_classes=3))
_load = [{load}]
test_dataloader = dict(dataset=dict(pipeline=[
    *_load, dict(type='torchvision/Resize', size=20, interpolation='bicubic'),
    dict(type='torchvision/CenterCrop', size=16), dict(type='PackInputs')]))
"""
ARRAYS = "dict(type='NumpyToPIL', to_rgb=False)"  # as CIFAR-100's
FILES = "dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='NumpyToPIL', to_rgb=True)"


def made(folder: Path, text: str, name: str = 'small', **more: Any) -> tuple[Path, Path, Path]:
    """Write a config, a checkpoint of random weights, and their bundle; return the three paths."""
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    config.write_text(text.format(repo=REPO, **more))
    model = randomised(build_model(config), 3)
    meta = dict(trained_meta(model), epoch=1, seed=0, dataset_meta=dict(classes=CLASSES), adapter_format=FORMAT)
    torch.save(dict(state_dict=adapter_state(model), meta=meta), checkpoint)
    return config, checkpoint, pack(config, checkpoint, folder / f'{name}.safetensors')
