"""The full state that a resumed run continues from, and the settings that it continues with."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mmengine import Config

from ..errors import UserError
from .full_state import last_full_state, read_full_state
from .record import json_safe
from .settings import UNSET, Differences, Keys, differing, dotted, listed


def resumed(cfg: Config) -> tuple[Config, dict[str, Any] | None, list[str]]:
    """Find and read the full state to continue.

    A file that the user named is never exchanged for another.

    Returns:
        The config with that file as ``load_from``, its content (None for a new run), and why newer ones are skipped.

    Raises:
        UserError: when that file is broken, or the work dir has no whole full state.
    """
    if not cfg.get('resume'):
        return cfg, None, []
    if cfg.get('load_from'):
        return cfg, read_full_state(cfg.load_from), []
    cfg = cfg.copy()
    last, content, reasons = last_full_state(cfg.work_dir)
    cfg.load_from = str(last)
    return cfg, content, reasons


def with_settings(cfg: Config, meta: Mapping[str, Any]) -> tuple[Config, str | None]:
    """Return the config that a run continues with, and the question that the user has to answer first, if any.

    Args:
        cfg: of :func:`resumed`. Its ``resume_with`` says which settings to take if the full state records others:
            ``'old'``, ``'new'``, or neither, which is the question.
        meta: of the full state.

    Raises:
        UserError: when the old settings cannot be taken, or nothing is left to train.
    """
    file, answer = cfg.load_from, cfg.get('resume_with')
    try:
        differences = differing(cfg, meta)
    except UserError as error:
        raise UserError(f'{file} is broken: {error}.') from error
    cfg = copy.deepcopy(cfg)
    if answer == 'old':
        _take_old(cfg, meta, differences)
    last = cfg.train_cfg.get('max_epochs')
    if isinstance(last, int) and meta['epoch'] > last and (answer or not differences):
        raise UserError(f'Nothing is left to train: {file} is from after epoch {meta["epoch"]} of {last}.')
    cfg.given_options = _options(cfg, meta, differences)
    if answer or not differences:
        return cfg, None
    return cfg, (
        f'{file} was trained with other settings than the config and the command now give (old -> new):\n'
        f'{listed(differences)}\n'
        'Say which to use: --resume-with old or --resume-with new. Or start another run, without --resume and in '
        'another --work-dir.'
    )


def _take_old(cfg: Config, meta: Mapping[str, Any], differences: Differences) -> None:
    """Take the recorded numbers. Names are never taken from a file, as classes are built by them."""
    taken = set()
    for keys, (old, _) in differences.items():
        parts = old if isinstance(old, list) else [old]
        plain = old is UNSET or all(part is None or isinstance(part, (bool, int, float)) for part in parts)
        if plain and keys[0] != 'processes' and not any(keys[:n] in taken for n in range(len(keys))):
            with suppress(KeyError, IndexError, TypeError):  # the config may have no such place
                _put(cfg, keys, old)
            taken.add(keys)
    left = differing(cfg, meta)
    if left:
        raise UserError(
            f'--resume-with old takes only numbers from {cfg.load_from}, and cannot take these (old -> new):\n'
            f'{listed(left)}\nGive them in the config or the command, as they were.'
        )


def _put(place: Any, keys: Keys, value: Any) -> None:
    """Set a value, or remove it and what is then empty."""
    key, *inner = keys
    if inner:
        _put(place[key], inner, value)
    elif value is not UNSET:
        place[key] = value
    if value is UNSET and not isinstance(place, list) and not (inner and place[key]):
        del place[key]


def _options(cfg: Config, meta: Mapping[str, Any], differences: Differences) -> dict[str, Any]:
    """Return the ``--cfg-options`` that hold for the whole run; new ones have the epoch in front of their names."""
    changed = {dotted(keys): new for keys, (_, new) in differences.items()}
    given, recorded = cfg.get('given_options', {}), meta.get('options') or {}
    late = [*changed, *(re.sub(r'^after_epoch_\d+\.', '', k) for k in recorded if k.startswith('after_epoch_'))]
    kept = {k: v for k, v in given.items() if not any(c == k or c.startswith(f'{k}.') for c in late)}
    options = {**kept, **recorded}
    if cfg.get('resume_with') == 'new':
        prefix = f'after_epoch_{meta["epoch"]}'
        options |= {f'{prefix}.{k}': None if v is UNSET else json_safe(v) for k, v in changed.items()}
    return json_safe(options)
