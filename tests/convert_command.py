"""What the tests of the command share: running it in this process, and small files."""

from __future__ import annotations

from pathlib import Path

import torch
from references import of_timm

import tools

TOOL = Path(__file__).parents[1] / 'tools/convert_checkpoint.py'


def call(*argv: object) -> int:
    """Run the tool in this process; its exit status."""
    return tools.call('convert_checkpoint', *argv)


def refused(capsys, *argv: object) -> str:
    """The one sentence; nothing was written or changed."""
    return tools.refused(capsys, 'convert_checkpoint', *argv)


def write(state: object, name: str = 'src.pth') -> str:
    """``state`` as a file of torch; its name."""
    torch.save(state, name)
    return name


def timm() -> dict[str, torch.Tensor]:
    """A file in timm's naming."""
    return dict(of_timm('timm_vit').state)
