"""Parameter schedules, corrected for any number of iterations in an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

COUNTS = ('milestones', 'periods', 'step_size', 'total_steps')  # what mmengine compares with whole numbers of steps


def fitted(schedulers: Any, epoch_length: int, max_epochs: int) -> Any:
    """Fit the ``param_scheduler`` of a config to the iterations of an epoch.

    A schedule that rounds to no iteration is left out, as mmengine refuses it. A linear or constant one of a single
    iteration is at its end there; otherwise it would stay at its start for the rest of the run. Milestones and
    periods in fractions of an epoch are rounded to iterations; mmengine would never reach them.

    Args:
        schedulers: a scheduler's config, a list of them, or anything else, which is returned as it is.
        epoch_length: iterations in an epoch, at least 1.
        max_epochs: the end of a schedule that states none.
    """
    if isinstance(schedulers, Mapping) and 'type' in schedulers:
        schedulers = [schedulers]
    if not isinstance(schedulers, Sequence) or isinstance(schedulers, str):
        return schedulers
    fit = [_fitted(s, epoch_length, max_epochs) if isinstance(s, Mapping) else s for s in schedulers]
    return [s for s in fit if s is not None]


def _fitted(cfg: Mapping[str, Any], epoch_length: int, max_epochs: int) -> dict[str, Any] | None:
    length = epoch_length if cfg.get('convert_to_iter_based') else 1
    last = max_epochs * length if cfg.get('by_epoch', True) else math.inf
    begin = int(cfg.get('begin', 0) * length)
    end = int(cfg['end'] * length) if 'end' in cfg else last
    if end <= begin and cfg.get('begin', 0) < cfg.get('end', math.inf):
        return None
    if end - begin == 1 and 'Linear' in str(cfg['type']):
        return dict(cfg, start_factor=cfg.get('end_factor', 1.0))
    if end - begin == 1 and end < last and 'Constant' in str(cfg['type']):
        return dict(cfg, factor=1.0)
    if cfg.get('convert_to_iter_based') and any(key in cfg for key in COUNTS):
        return _in_whole_iterations(cfg, begin, end, length)
    return dict(cfg)


def _in_whole_iterations(cfg: Mapping[str, Any], begin: int, end: int, length: int) -> dict[str, Any]:
    """Convert to iterations as mmengine does, but to whole numbers."""
    cfg = dict(cfg, by_epoch=False, begin=begin, end=end)
    del cfg['convert_to_iter_based']
    for key in COUNTS:
        if isinstance(cfg.get(key), Sequence):
            cfg[key] = [max(1, round(v * length)) for v in cfg[key]]
        elif cfg.get(key) is not None:
            cfg[key] = max(1, round(cfg[key] * length))
    return cfg


def unfinished(schedulers: Any, max_epochs: int) -> list[str]:
    """Return a warning if the run ends within its warm-up, and so never reaches its learning rate."""
    listed = [schedulers] if isinstance(schedulers, Mapping) else schedulers or ()
    ends = [s.get('end', 0) for s in listed if s.get('by_epoch', True) and 'Linear' in str(s['type'])]
    return [
        f'The warm-up lasts {end:g} epochs and the run {max_epochs}: it never reaches its learning rate; shorten the '
        'warm-up in param_scheduler.'
        for end in ends
        if end > max_epochs
    ]
