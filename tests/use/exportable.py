"""Small bundles of every host, and what their models say, for the tests of export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from chosen import options, written
from mmengine.registry import TRANSFORMS, DefaultScope
from tiny import HOSTS, randomised
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine.adapter import trained_meta
from vpetl_mm.use.bundle.packing import packed

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CLASSES = ['fight', 'no fight', 'neither']
LORA = dict(lora=dict(type='LoRA', at='qkv', slots='qkv', rank=2), mlp=dict(type='LoRA', at='fc2', rank=2))


def small_config(host: str, deltas: Mapping[str, Any], folder: Path, spt: bool = False) -> dict[str, Any]:
    """The config of a small experiment: its model normalises, and its test pipeline reads files."""
    about = HOSTS[host]
    # what is trained is in the bundle, so that there is no base; SPT tunes the start that the seed draws
    config = about.config({}, ['head'], petl=options(written(about, folder)), seed=0)
    config = config if spt else about.config(deltas, ['all'], seed=0)
    video = about.scope == 'mmaction'
    kind = 'ActionDataPreprocessor' if video else 'ClsDataPreprocessor'
    shape = dict(format_shape='NCTHW') if video else dict(to_rgb=True)
    config['model']['data_preprocessor'] = dict(type=kind, mean=MEAN, std=STD, **shape)
    config['test_dataloader'] = dict(dataset=dict(type='PETLVideoDataset', pipeline=pipeline(about.size)))
    return config


def pipeline(size: tuple[int, ...]) -> list[dict[str, Any]]:
    """Steps that end in inputs of ``size``."""
    if len(size) == 4:
        return [
            dict(type='OpenVideo'),
            dict(type='SampleFrames', clip_len=size[1], frame_interval=2, num_clips=1, test_mode=True),
            dict(type='DecodeVideo'),
            dict(type='Resize', scale=(-1, size[-1])),
            dict(type='CenterCrop', crop_size=size[-1]),
            dict(type='FormatShape', input_format='NCTHW'),
            dict(type='PackActionInputs'),
        ]
    edge = dict(type='ResizeEdge', scale=size[-1], edge='short')
    return [
        dict(type='LoadImageFromFile'),
        edge,
        dict(type='CenterCrop', crop_size=size[-1]),
        dict(type='PackInputs'),
    ]


def small_bundle(folder: Path, host: str, deltas: Mapping[str, Any], spt: bool = False, **config: Any) -> Path:
    """Pack a model with random weights; ``config`` replaces parts of :func:`small_config`."""
    cfg = load_config({**small_config(host, deltas, folder, spt), **config})
    return packed_with(cfg, folder / f'{host}.safetensors')


def packed_with(cfg, file: Path, classes: list[str] = CLASSES) -> Path:
    """Pack the model of a config, its weights random and its head's statistics far from zero and one."""
    model = build_model(cfg, init_weights=True).eval()
    randomised(nn.ParameterList(p for p in model.parameters() if p.requires_grad), 1, std=0.2)
    norm = getattr(getattr(model, model.head_name), 'bn', None)
    if norm is not None:
        norm.running_mean.normal_(1, 1)
        norm.running_var.uniform_(0.5, 4)
    meta = dict(trained_meta(model), dataset_meta=dict(classes=classes), epoch=1)
    return packed(cfg, file.stem, Path('adapter.pth'), dict(state_dict=model.state_dict(), meta=meta), file)


def through(steps: list[dict[str, Any]], files: list[Path], scope: str) -> list[dict[str, Any]]:
    """What the library's own transforms make of files."""
    with DefaultScope.overwrite_default_scope(scope):
        built = [TRANSFORMS.build(dict(step)) for step in steps]
    done = []
    for file in files:
        data = dict(filename=str(file), img_path=str(file), label=-1, start_index=0, modality='RGB')
        for step in built:
            data = step(data)
        done.append(data)
    return done


def scores_of(model: nn.Module, samples: list[dict[str, Any]]) -> Tensor:
    """The scores that mmengine's test loop would be given, (n, classes)."""
    batch = {key: [sample[key] for sample in samples] for key in ('inputs', 'data_samples')}
    with torch.no_grad():
        return torch.stack([sample.pred_score for sample in model.test_step(batch)])
