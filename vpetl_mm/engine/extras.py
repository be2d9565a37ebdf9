"""Averages and Weights & Biases, where a config asks for them: what is wrong with them before anything is written."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine import Config
from mmengine.registry import HOOKS

from ..errors import UserError


def check_extras(cfg: Config, resumed: Mapping[str, Any] | None = None) -> None:
    """Look at a config's EMAHook and WandbVisBackend.

    Args:
        cfg: the experiment.
        resumed: the checkpoint that it continues.

    Raises:
        UserError: for an EMAHook with wrong arguments, more than one, averages that would be lost, or a wandb that
            is missing.
    """
    averages = [HOOKS.build(dict(h, type='mmengine.EMAHook')) for h in _typed(cfg.get('custom_hooks'), 'EMAHook')]
    if len(averages) > 1:
        raise UserError(
            f'custom_hooks has {len(averages)} EMAHooks, and a checkpoint holds the averages of one; keep one.'
        )
    for hook in averages:
        if cfg.get('train_cfg') and hook.begin_epoch > cfg.train_cfg.max_epochs:
            raise UserError(f'EMAHook would begin in epoch {hook.begin_epoch} of {cfg.train_cfg.max_epochs}.')
    if 'ema_state_dict' in (resumed or {}) and not averages:
        raise UserError(
            f'{cfg.load_from} holds averages, and the config has no EMAHook; add the custom_hooks that made them.'
        )
    if _typed(_backends(cfg), 'WandbVisBackend') and importlib.util.find_spec('wandb') is None:
        raise UserError('WandbVisBackend needs Weights & Biases, which is not installed: pip install wandb.')


def with_own_types(cfg: Config) -> Config:
    """The config with this project's EMAHook and WandbVisBackend, where a host library has others of that name."""
    cfg = copy.deepcopy(cfg)
    for entries, name in ((cfg.get('custom_hooks'), 'EMAHook'), (_backends(cfg), 'WandbVisBackend')):
        for entry in _typed(entries, name):
            entry['type'] = f'mmengine.{name}'
    return cfg


def _backends(cfg: Config) -> Iterable[Any] | None:
    return (cfg.get('visualizer') or {}).get('vis_backends')


def _typed(entries: Iterable[Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The entries of a config's list whose type is ``name``, with a library's prefix or without."""
    dicts = [e for e in entries or () if isinstance(e, Mapping)]
    return [e for e in dicts if str(e.get('type')).rpartition('.')[2] == name]
