"""What the tests of the command share: running it in this process, and small files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from references import of_timm

from vpetl_cli.command import run

TOOL = Path(__file__).parents[2] / 'tools/convert_checkpoint.py'


def call(*argv: object) -> int:
    """Run the tool in this process; its exit status."""
    spec = importlib.util.spec_from_file_location('convert_checkpoint', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run(module.main, module.parser, [str(a) for a in argv])


def snapshot() -> dict[str, bytes]:
    """Every file here, and its content."""
    return {str(p): p.read_bytes() if p.is_file() else b'' for p in Path().rglob('*')}


def refused(capsys, *argv: object) -> str:
    """The one sentence; nothing was written or changed."""
    before = snapshot()
    assert call(*argv) == 2
    assert snapshot() == before
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and 'Traceback' not in error, error
    return error


def write(state: object, name: str = 'src.pth') -> str:
    """``state`` as a file of torch; its name."""
    torch.save(state, name)
    return name


def timm() -> dict[str, torch.Tensor]:
    """A file in timm's naming."""
    return dict(of_timm('timm_vit').state)
