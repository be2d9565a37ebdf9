"""Find configs and tools: beside the packages in a checkout, inside vpetl_mm once a wheel is installed."""

from __future__ import annotations

import difflib
import re
import runpy
from functools import cache
from pathlib import Path

from .errors import UserError

_BESIDE = Path(__file__).resolve().parents[1]
_CARRIED = _BESIDE / 'vpetl_mm/.mim'
INSTALLED = _CARRIED.is_dir()
ROOT = _CARRIED if INSTALLED else _BESIDE
TOOLS = ROOT / 'tools'
# VTAB-1k: the tables of the words that a leaf lacks, a leaf's name and its experiments' names
_WORDS = dict(vtab_tasks='datasets/vtab1k.py', vtab_pretrains='models/vit_b_vtab.py')
_LEAF = re.compile(r'((?:.*_)?vtab)((?:_.*)?)')
_EXPERIMENT = re.compile(r'((?:.*_)?vtab)(?P<task>[a-z0-9]+)((?:_.*)?)_(?P<pretrain>[a-z0-9]+)')


def configs() -> Path:
    """Return the folder of the experiments: ``configs`` in the current folder if it holds them, else the shipped."""
    here = Path('configs')
    return here if (here / 'metafile.yml').is_file() else ROOT / 'configs'


def experiments(folder: Path) -> dict[str, Path]:
    """Return name -> path for the experiments of a folder and of its ``vtab1k/``; a leaf's exist by name only."""
    files = sorted([*folder.glob('*.py'), *folder.glob('vtab1k/*.py')])
    return {name: path.with_stem(name) for path in files for name in names_of(path.stem)}


@cache
def names_of(stem: str) -> tuple[str, ...]:
    """Return the names of the experiments that a file stands for.

    A file with the field ``vtab`` in its name is a leaf, which lacks the task of VTAB-1k and the pre-training:
    ``vit_lora_vtab_r8`` stands for ``vit_lora_vtabdtd_r8_in21k`` and 56 more. Any other file stands for itself.
    """
    if not (leaf := _LEAF.fullmatch(stem)):
        return (stem,)
    tasks, pretrains = (runpy.run_path(str(ROOT / 'configs/_base_' / file))[table] for table, file in _WORDS.items())
    return tuple(f'{leaf[1]}{task}{leaf[2]}_{pretrain}' for pretrain in pretrains for task in tasks)


def leaf_of(name: str) -> tuple[str, dict[str, str]]:
    """Return the leaf of a VTAB-1k experiment, its task and its pre-training; for any other name, itself and {}."""
    match = _EXPERIMENT.fullmatch(name)
    return (match[1] + match[3], match.groupdict()) if match else (name, {})


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
