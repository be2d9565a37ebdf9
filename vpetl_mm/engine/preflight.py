"""What is missing or wrong with a run, told before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from ..errors import UserError
from ..models.base_weights import base_state, how_to_get
from ..models.build import build_model


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


def check_count(cfg: Config, model: nn.Module) -> None:
    """Raise :class:`UserError` when the model's trainable parameters are not the config's ``expect_params``."""
    expected, count = cfg.get('expect_params'), model.plan.count()['trainable']
    if expected is not None and expected != count:
        raise UserError(f'expect_params is {expected:,}, and the config trains {count:,} parameters.')


def check_experiment(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Find what a run would stumble over, without writing a file: inputs, settings, base weights, lists.

    Args:
        cfg: the experiment.
        loaders: the data loaders that the run uses.

    Raises:
        UserError: for the first thing that is wrong; all missing inputs come together.
    """
    check_inputs(cfg, loaders)
    model = build_model(cfg, meta=True)
    check_count(cfg, model)
    if model.base is not None:
        with model.plan.detached():
            base_state(model.backbone, model.base)
    for loader in loaders:
        if cfg.get(loader):
            _check_list(cfg, loader)


def _check_list(cfg: Config, loader: str) -> None:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        dataset = DATASETS.build(cfg.copy()[loader].dataset)
    dataset.full_init()
    batch = cfg[loader].get('batch_size', 1)
    if cfg[loader].get('drop_last') and len(dataset) < batch:
        raise UserError(
            f'{loader}: {len(dataset)} samples are fewer than a batch of {batch}, and drop_last leaves none; '
            f'set {loader}.batch_size lower.'
        )
