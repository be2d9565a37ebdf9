"""Find configs and tools: beside the packages in a checkout, inside vpetl_mm once a wheel is installed."""

from __future__ import annotations

import difflib
import re
import runpy
from pathlib import Path

from .errors import UserError

_BESIDE = Path(__file__).resolve().parents[1]
_CARRIED = _BESIDE / 'vpetl_mm/.mim'
INSTALLED = _CARRIED.is_dir()
ROOT = _CARRIED if INSTALLED else _BESIDE
TOOLS = ROOT / 'tools'
_LEAF, _TASK = (re.compile(rf'(?<![^_])vtab{task}(?![^_])') for task in ('', '([a-z0-9]+)'))


def configs() -> Path:
    """Return the folder of the experiments: ``configs`` in the current folder if it holds them, else the shipped."""
    here = Path('configs')
    return here if (here / 'metafile.yml').is_file() else ROOT / 'configs'


def experiments(folder: Path) -> dict[str, Path]:
    """Return name -> file for the experiments of a folder and of its ``vtab1k/``.

    A file with the field ``vtab`` in its name is a leaf: it stands for an experiment per task of VTAB-1k, whose names
    have ``vtab<task>`` instead. Only the leaf exists on disk: see :func:`leaf_of`.
    """
    found = {path.stem: path for path in sorted([*folder.glob('*.py'), *folder.glob('vtab1k/*.py')])}
    if leaves := [stem for stem in found if _LEAF.search(stem)]:
        tasks = runpy.run_path(str(ROOT / 'configs/_base_/datasets/vtab1k.py'))['vtab_tasks']
        for stem in leaves:
            names = [_LEAF.sub(f'vtab{task}', stem) for task in tasks]
            leaf = found.pop(stem)
            found |= {name: leaf.with_stem(name) for name in names}
    return found


def leaf_name(name: str) -> str:
    """Return the name of the file that an experiment is read from: its leaf for VTAB-1k, else its own."""
    return _TASK.sub('vtab', name)


def leaf_of(path: Path) -> tuple[Path, str | None]:
    """Return the file that an experiment's path is read from and, if that is a leaf, the task of VTAB-1k."""
    task = _TASK.search(path.stem)
    if path.is_file() or not task:
        return path, None
    return path.with_stem(leaf_name(path.stem)), task[1]


def find_config(given: str | Path) -> Path:
    """Return the path of an experiment.

    Args:
        given: a path, or the name of a shipped experiment; ``configs/``, ``vtab1k/`` and ``.py`` may be left out.

    Raises:
        UserError: if there is no such experiment, with the nearest names.
    """
    path, named = Path(given), Path(f'{str(given).removesuffix(".py")}.py')
    if path.is_file():
        if path.suffix in ('.pth', '.safetensors'):
            raise UserError(f'{path} is a checkpoint, and a config comes first.')
        return path
    if path.is_dir():
        raise UserError(f'{path} is a folder; give one config.')
    shipped = configs() / (named.relative_to('configs') if named.parts[0] == 'configs' else named)
    there = experiments(path.parent) | experiments(shipped.parent)
    if named.stem in there:
        return there[named.stem]
    near = difflib.get_close_matches(named.stem, there, n=3, cutoff=0.5)
    hint = f' Nearest: {", ".join(str(named.with_stem(n)) for n in near)}.' if near else ''
    raise UserError(f'The config {path} does not exist.{hint}')


def spoken(text: str) -> str:
    """Return ``text`` with its commands as they are typed: ``vpetl train`` for ``tools/train.py`` once installed."""
    if not INSTALLED:
        return text
    return re.sub(r'\btools/(\w+)\.(?:py|sh)', r'vpetl \1', text).replace('"make demo"', '"vpetl demo"')
