"""Small trained models, as a run leaves them, and their bundles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import Host, randomised
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, trained_meta
from vpetl_mm.use.bundle.packing import pack

KEY = 'vpetl_mm_bundle'  # as in docs/using.md and in the files of older versions
CLASSES = ['lifting up', 'pushing', 'opening']
URL = 'https://example.org/base.pth'
PIPELINES = {
    'mmaction': [
        dict(type='OpenVideo'),
        dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=2, test_mode=True),
        dict(type='DecodeVideo'),
        dict(type='Resize', scale=(-1, 24)),
        dict(type='ThreeCrop', crop_size=24),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ],
    'mmpretrain': [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=16, edge='short'),
        dict(type='CenterCrop', crop_size=16),
        dict(type='PackInputs'),
    ],
}
NORMS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
PREPROCESSORS = {
    'mmaction': dict(type='ActionDataPreprocessor', format_shape='NCTHW', **NORMS),
    'mmpretrain': dict(type='ClsDataPreprocessor', to_rgb=True, **NORMS),
}


@dataclass(frozen=True)
class Run:
    """A trained model and the files that its run left."""

    model: nn.Module
    config: Path
    checkpoint: Path
    base: Path | None


def base_of(host: Host, folder: Path, seed: int = 11) -> Path:
    """Return the file of a random backbone, as a pre-trained one is downloaded."""
    file = folder / f'base_{seed}.pth'
    torch.save(randomised(build_model(host.config()).backbone, seed).state_dict(), file)
    return file


def experiment_of(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the config of an experiment from one of a model."""
    scope = config['default_scope']
    model = dict(config['model'], data_preprocessor=PREPROCESSORS[scope])
    dataset = dict(type='Any', ann_file='data/small/test.txt', pipeline=PIPELINES[scope])
    return dict(dict(config, model=model), test_dataloader=dict(dataset=dataset), **more)


def write_config(file: Path, config: Mapping[str, Any]) -> Path:
    """Write a config."""
    file.write_text(''.join(f'{name} = {value!r}\n' for name, value in config.items()))
    return file


def run_of(
    folder: Path,
    config: Mapping[str, Any],
    change: Callable[[nn.Module], Any] = lambda model: None,
    full: bool = False,
) -> Run:
    """Return a run of a config whose trained parameters are random; ``change`` alters the model, too."""
    model = build_model(config, init_weights=True).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        change(model)
    checkpoint = save(model, folder / ('epoch_3.pth' if full else 'adapter_epoch_3.pth'), full)
    base = config['model']['base']
    return Run(
        model, write_config(folder / 'small.py', experiment_of(config)), checkpoint, base and Path(base['file'])
    )


def save(model: nn.Module, file: Path, full: bool = False, **meta: Any) -> Path:
    """Write a checkpoint as a run does: an adapter, or a full state."""
    about = dict(trained_meta(model), epoch=3, seed=1, dataset_meta=dict(classes=CLASSES), **meta)
    state = model.state_dict() if full else adapter_state(model)
    torch.save(dict(state_dict=state, meta=about if full else dict(about, adapter_format=FORMAT)), file)
    return file


def bundle_of(folder: Path, config: Mapping[str, Any], name: str = 'b', **options: Any) -> Path:
    """Return the bundle of :func:`run_of`."""
    run = run_of(folder, config, **options)
    return pack(run.config, run.checkpoint, folder / f'{name}.safetensors')


def content_of(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a bundle's header and tensors, by safetensors alone."""
    with safe_open(file, 'pt') as opened:
        return json.loads(opened.metadata()[KEY]), {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118


def write(file: Path, header: Any, tensors: Mapping[str, Tensor] | None = None) -> Path:
    """Write a bundle of any content; text is the header as it is."""
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(dict(tensors or {'a': torch.ones(1)}), file, {KEY: text})
    return file
