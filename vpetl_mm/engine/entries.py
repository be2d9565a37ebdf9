"""Config entries that no class checks: which must be dicts, and the ranges of numbers."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from typing import Any

from mmengine import Config

from ..errors import UserError, unknown

# entries without a class of their own, and what they may hold
PLAIN = {
    'auto_scale_lr': ('enable', 'base_batch_size'),
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
    'env_cfg.dist_cfg': None,
    'holdout': ('fraction', 'seed'),
    'randomness': ('seed', 'diff_rank_seed', 'deterministic'),
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
DICTS = ('default_hooks', 'optim_wrapper', 'optim_wrapper.optimizer', 'visualizer', *PLAIN)
DICTS += ('train_cfg', 'val_cfg', 'test_cfg', *LOADERS, *(f'{loader}.dataset' for loader in LOADERS))
SWITCHES = (
    'auto_scale_lr.enable',
    'env_cfg.cudnn_benchmark',
    'randomness.deterministic',
    'randomness.diff_rank_seed',
)
WHOLE = {
    **{f'{loader}.batch_size': 1 for loader in LOADERS},
    **{f'{loader}.num_workers': 0 for loader in LOADERS},
    'train_cfg.max_epochs': 1,
    'train_cfg.val_begin': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'auto_scale_lr.base_batch_size': 1,
    'randomness.seed': 0,
    'env_cfg.resource_limit': 1,
    'env_cfg.mp_cfg.opencv_num_threads': 0,
    'log_processor.window_size': 1,
    'default_hooks.finite_loss.interval': 1,
    'default_hooks.logger.interval': 1,
}


def check_entries(cfg: Config) -> None:
    """Raise :class:`UserError` for the first entry of a wrong type or out of range."""
    never_none = {'env_cfg', 'randomness'}.intersection(cfg)
    never_none.update(f'{loader}.dataset' for loader in LOADERS if cfg.get(loader))
    for key in DICTS:
        value = at(cfg, key)
        if not isinstance(value, Mapping) and (value is not None or key in never_none):
            raise UserError(f'{key} must be a dict, got {value!r}.')
        for name in set(value or ()) - set(PLAIN.get(key) or value or ()):
            raise unknown(f'key of {key}', name, PLAIN[key])
    for key, least in WHOLE.items():
        value = at(cfg, key)
        if value is not None and (type(value) is not int or value < least):
            raise UserError(f'{key} must be a whole number of at least {least}, got {value!r}.')
    for key in SWITCHES:
        if not isinstance(at(cfg, key), (int, type(None))):
            raise UserError(f'{key} must be True or False, got {at(cfg, key)!r}.')
    for name in ('lr', 'momentum', 'weight_decay'):
        value = at(cfg, f'optim_wrapper.optimizer.{name}')
        if value is not None and (not isinstance(value, (int, float)) or not 0 <= value < math.inf):
            raise UserError(f'optim_wrapper.optimizer.{name} must be a number of at least 0, got {value!r}.')
    methods = multiprocessing.get_all_start_methods()
    if at(cfg, 'env_cfg.mp_cfg.mp_start_method') not in (None, *methods):
        raise unknown('env_cfg.mp_cfg.mp_start_method', cfg.env_cfg.mp_cfg.mp_start_method, methods)
    if (at(cfg, 'randomness.seed') or 0) >= 2**32:
        raise UserError(f'randomness.seed must be below 2**32, got {cfg.randomness.seed}.')


def at(cfg: Any, key: str) -> Any:
    """Return the value at a dotted key; None if it is not set."""
    for part in key.split('.'):
        cfg = cfg.get(part) if isinstance(cfg, (Config, Mapping)) else None
    return cfg


def innermost(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data set's config inside wrappers such as ClassBalancedDataset."""
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return dataset
