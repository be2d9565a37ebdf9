"""What a run needs and does not find, told in one message before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine import Config

from ..errors import UserError
from ..models.base_weights import how_to_get


def _base(cfg: Config) -> Iterator[str]:
    base = cfg.model.get('base')
    if base and base.get('file') and not Path(base['file']).is_file():
        how = how_to_get(base) if base.get('url') else cfg.get('data_help', how_to_get(base))
        yield f'pre-trained weights {base["file"]}: {how}'


def _data(cfg: Config, loader: str) -> Iterator[str]:
    if not cfg.get(loader):
        return
    dataset = cfg[loader].get('dataset', {})
    root = Path(dataset.get('data_root') or '')
    how = cfg.get('data_help', 'see data/README.md')
    if dataset.get('ann_file') and not (root / dataset['ann_file']).is_file():
        yield f'annotation list {root / dataset["ann_file"]}: {how}'
    for kind, folder in (dataset.get('data_prefix') or {}).items():
        if folder and not (root / folder).is_dir():
            yield f'{kind} folder {root / folder}: {how}'


def check_inputs(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise one :class:`UserError` that names the config, each missing path and how to get it.

    Args:
        cfg: the experiment.
        loaders: the data loaders that the run uses, such as ``('train_dataloader',)``.
    """
    missing = list(_base(cfg))
    for loader in loaders:
        missing += [m for m in _data(cfg, loader) if m not in missing]
    if missing:
        lines = '\n'.join(f'  - {m}' for m in missing)
        raise UserError(f'{cfg.filename or "The config"} cannot run, its inputs are missing:\n{lines}')
