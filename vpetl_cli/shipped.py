"""Where configs and tools are: beside the packages in a checkout, inside one once a wheel is installed."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from .errors import UserError

_BESIDE = Path(__file__).resolve().parents[1]
_CARRIED = _BESIDE / 'vpetl_mm/.mim'
INSTALLED = _CARRIED.is_dir()
ROOT = _CARRIED if INSTALLED else _BESIDE
TOOLS = ROOT / 'tools'


def configs() -> Path:
    """The folder of the experiments: ``configs`` of the current folder if it holds them, else the one shipped."""
    here = Path('configs')
    return here if (here / 'metafile.yml').is_file() else ROOT / 'configs'


def find_config(given: str | Path) -> Path:
    """The file of an experiment.

    Args:
        given: a path, or the name of an experiment that is shipped; ``configs/`` and ``.py`` may be left out.

    Raises:
        UserError: when there is no such file, with the nearest names.
    """
    path, named = Path(given), Path(f'{str(given).removesuffix(".py")}.py')
    if path.is_file():
        if path.suffix in ('.pth', '.safetensors'):
            raise UserError(f'{path} is a checkpoint, and a config comes first.')
        return path
    if path.is_dir():
        raise UserError(f'{path} is a folder; give one config.')
    shipped = configs() / (named.relative_to('configs') if named.parts[0] == 'configs' else named)
    if shipped.is_file():
        return shipped
    there = sorted({p.name for folder in (path.parent, shipped.parent) for p in folder.glob('*.py')})
    near = difflib.get_close_matches(named.name, there, n=3, cutoff=0.5)
    hint = f' Nearest: {", ".join(str(named.with_name(n)) for n in near)}.' if near else ''
    raise UserError(f'The config {path} does not exist.{hint}')


def spoken(text: str) -> str:
    """``text`` with its commands as they are typed here: ``vpetl train`` for ``tools/train.py`` once installed."""
    if not INSTALLED:
        return text
    return re.sub(r'\btools/(\w+)\.(?:py|sh)', r'vpetl \1', text).replace('"make demo"', '"vpetl demo"')
