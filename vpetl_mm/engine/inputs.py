"""The files that a run reads: what is missing, and how to get it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmengine import Config

from ..errors import UserError
from ..spt.tuning import check_spt
from ..weights.base import how_to_get
from .entries import at, innermost


def check_inputs(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise one :class:`UserError` that names the config, each missing path and how to get it."""
    missing = [*_base(cfg), *_spt(cfg), *(line for loader in loaders for line in _data(cfg, loader))]
    if missing:
        lines = '\n'.join(f'  - {m}' for m in dict.fromkeys(missing))
        raise UserError(f'{cfg.filename or "The config"} cannot run, its inputs are missing:\n{lines}')


def _base(cfg: Config) -> Iterator[str]:
    base = cfg.model.get('base')
    if base and base.get('file') and not Path(base['file']).is_file():
        how = how_to_get(base) if base.get('url') else _data_help(cfg, base['file'], how_to_get(base))
        yield f'pre-trained weights {base["file"]}: {how}'


def _spt(cfg: Config) -> Iterator[str]:
    spt = at(cfg, 'model.petl.spt')
    if spt is not None and not Path(file := check_spt(spt)['file']).is_file():
        yield f'SPT file {file}: create it with tools/sensitivity.py {cfg.filename or "CONFIG"}'


def _data(cfg: Config, loader: str) -> Iterator[str]:
    dataset = innermost(at(cfg, f'{loader}.dataset') or {})
    root = Path(dataset.get('data_root') or '')
    if not root.is_dir():
        yield _missing(cfg, 'data folder', root)
        return
    if dataset.get('ann_file') and not (root / dataset['ann_file']).is_file():
        yield _missing(cfg, 'annotation list', root / dataset['ann_file'])
    prefix = dataset.get('data_prefix') or {}
    for kind, folder in (dict(image=prefix) if isinstance(prefix, str) else prefix).items():
        if folder and not (root / folder).is_dir():
            yield _missing(cfg, f'{kind} folder', root / folder)


def _missing(cfg: Config, what: str, path: Path) -> str:
    return f'{what} {path}: {_data_help(cfg, path, "see data/README.md")}'


def _data_help(cfg: Config, path: str | Path, otherwise: str) -> str:
    """Return ``data_help``, which a config inherits with its data set, if it is about the folder of ``path``."""
    text, parts = cfg.get('data_help', ''), Path(path).parts
    folder = parts[1] if len(parts) > 1 and parts[0] == 'data' else None
    if folder in re.findall(r'\w+', text):
        return text
    return 'made by "make demo"' if folder == 'demo' else otherwise
