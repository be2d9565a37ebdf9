"""Shared by the tests of pre-trained weights: the converter, run in this process, and small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from references import model_config, of_timm

import tools
from vpetl_mm import build_model


def call(*argv: object) -> int:
    """Run the tool in this process and return its exit status."""
    return tools.call('convert_checkpoint', *argv)


def refused(capsys, src: object, *options: object, dst: str = 'refused.safetensors') -> str:
    """Convert ``src``, which must fail without writing anything; return the error."""
    return tools.refused(capsys, 'convert_checkpoint', src, dst, *options)


def write(state: object, name: str = 'src.pth') -> str:
    """Write ``state`` as a file of torch and return its name."""
    torch.save(state, name)
    return name


def write_config(config: dict[str, Any]) -> str:
    """Write a config and return its name."""
    Path('config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    return 'config.py'


def timm() -> dict[str, torch.Tensor]:
    """Return the weights of a ViT in timm's naming."""
    return dict(of_timm('timm_vit').state)


def load(reference, backbone: dict[str, Any], **base: Any) -> torch.nn.Module:
    """Build a model with ``backbone`` on a base."""
    return build_model(model_config(backbone, reference, base), init_weights=True)
