"""Reads files of ``torch.save`` without running their code or trusting the sizes that they state."""

from __future__ import annotations

import math
import re
import resource
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bounds import check_zip
from ..errors import UserError, tellable

# an unpacked file, or all its tensors, may take TIMES its size plus SPARE (tied weights count twice, and some people
# compress); reading it may take WORK more
TIMES, SPARE, WORK = 4, 1 << 20, 512 << 20
DEEPEST = 50
NESTED = (Tensor, Mapping, list, tuple)
WITH_ATTRIBUTES = (Tensor, nn.Parameter, OrderedDict, Counter)
CODE = 'more than tensors and plain values'
NUMBERS = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')


class NumpyNumberType:
    """Stand-in for ``numpy.dtype``, whose objects can be pointers: takes plain numbers alone."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in NUMBERS:
            raise ValueError(f'it holds a numpy value of type {code!r:.20}, which is not a plain number')
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.code = ('>' if state[1] == '>' else '<') + self.code[-2:]


def numpy_number(kind: NumpyNumberType, data: bytes) -> float | int | bool:
    """Stand-in for numpy's ``scalar``."""
    return np.frombuffer(data, kind.code, count=1).item()


def history(log: list = (), count: list = (), max_length: int = 1_000_000) -> dict[str, Any]:
    """Stand-in for mmengine's ``HistoryBuffer``, which older files of this project hold."""
    return dict(log=log, count=count, max_length=max_length)


STAND_INS = [
    (NumpyNumberType, 'numpy.dtype'),
    *((numpy_number, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    (history, 'mmengine.logging.history_buffer.HistoryBuffer'),
]


def read_torch(path: Path, trust_pickle: bool = False) -> Any:
    """Read a file of ``torch.save``; numpy's numbers become Python's.

    If it holds more than tensors and plain values, ``trust_pickle`` lets its code run.

    Raises:
        UserError: when it would take more memory than its size allows, or has tensors without values.
        Exception: whatever torch raises for a file that is broken or holds more than is allowed.
    """
    if zipfile.is_zipfile(path):  # torch < 1.6 wrote another format
        check_zip(path, allowed(path))
    try:
        with torch.serialization.safe_globals(STAND_INS), at_most(allowed(path) + WORK):
            content = _load(path, weights_only=True)
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise UserError('it would take far more memory than its size allows.') from error
        if not trust_pickle:
            raise
        content = _load(path, weights_only=False)
    if isinstance(content, NESTED):
        check_content(content, path.stat().st_size)
    return content


def _load(path: Path, weights_only: bool) -> Any:
    with path.open('rb') as stream:  # given a path, torch.load would go by its suffix
        return torch.load(stream, map_location='cpu', weights_only=weights_only)


def allowed(path: Path) -> int:
    """Return how many bytes the content of a file may take."""
    return TIMES * path.stat().st_size + SPARE


@contextmanager
def at_most(extra: int) -> Iterator[None]:
    """Limit this process to ``extra`` bytes more memory than it has now; on Linux alone."""
    try:
        now = int(Path('/proc/self/statm').read_text().split()[5]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_DATA)
        limit = min([now + extra, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    except (OSError, ValueError):
        before = None
    try:
        yield
    finally:
        if before:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def check_content(content: Any, size: int) -> None:
    """Refuse endless nesting, more parts or bytes than a file of ``size`` bytes can hold, and tensors without values.

    A tensor that is named twice counts twice, as a conversion copies it twice.

    Raises:
        UserError: naming the part.
    """
    parts, taken = 0, 0
    todo: list[tuple[str, Any, int]] = [('content', content, 0)]
    while todo:
        name, value, depth = todo.pop()
        if type(value) in WITH_ATTRIBUTES:
            vars(value).clear()  # a pickle can replace a tensor's "shape" and a dict's "items"
        if isinstance(value, Tensor):
            if value.is_meta:
                raise UserError(f'{tellable(name)} has a shape but no values (it was saved from the meta device).')
            taken += math.prod(value.shape) * value.element_size()
            if taken > TIMES * size + SPARE:
                raise UserError(f'its tensors up to {tellable(name)} would take {taken:,} bytes; it has {size:,}.')
            continue
        parts += len(value)
        if depth > DEEPEST or parts > size:
            raise UserError(f'its {tellable(name)[:80]} is nested too deeply, or holds one part too often.')
        named = value.items() if isinstance(value, Mapping) else enumerate(value)
        prefix = f'{name}.' if depth else ''
        todo += ((f'{prefix}{k}', part, depth + 1) for k, part in named if isinstance(part, NESTED))


def reason_of(error: Exception) -> str:
    """Say in a line why a file could not be read."""
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    if wanted:
        return f'it holds {CODE} ({tellable(wanted.group(1))})'
    text = str(error).rpartition('WeightsUnpickler error:')[2].strip()  # torch's advice comes first
    if not text or text.isdecimal() or 'eights only load failed' in text:
        text = type(error).__name__
    return tellable(text.splitlines()[0])[:300].rstrip('.')
