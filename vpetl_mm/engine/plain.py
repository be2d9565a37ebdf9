"""Checkpoints of plain values alone: to read one takes nothing but tensors, text, numbers, lists and dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.utils import apply_to

from ..errors import UserError


def plain(value: Any) -> Any:
    """``value`` with numpy's numbers and arrays, and mmengine's histories, as Python's numbers and lists."""
    return apply_to(value, lambda v: isinstance(v, (HistoryBuffer, np.generic, np.ndarray)), _as_lists)


def _as_lists(value: HistoryBuffer | np.generic | np.ndarray) -> Any:
    if not isinstance(value, HistoryBuffer):
        return value.tolist()
    log, count = value.data
    return dict(log=log.tolist(), count=count.tolist(), max_length=value.max_length)


def history_of(path: Path, name: str, value: Any) -> HistoryBuffer:
    """mmengine's history from the lists that :func:`plain` made of it.

    Raises:
        UserError: naming the file and the history, when they are other than it makes them.
    """
    lists = [value.get('log'), value.get('count')] if isinstance(value, dict) else [None]
    length = value.get('max_length') if isinstance(value, dict) else None
    whole = all(isinstance(part, list) and all(map(_is_number, part)) for part in lists)
    if not whole or len(lists[0]) != len(lists[1]) or not isinstance(length, int) or not 0 < length < 2**63:
        raise UserError(f'The checkpoint {path} is broken: message_hub.log_scalars.{name!r:.80} is no history.')
    return HistoryBuffer(*lists, length)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)  # as numpy holds them
