"""Reads a pickle of arrays of bytes, lists and text; NumPy itself builds nothing that the file describes."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any, ClassVar

import numpy as np

TUPLES = 50  # a pickle with one array has a dozen
# what may be used twice: text, bytes, names and results of calls; without the prefix SHORT_ and the suffix 8
SHARED = ('UNICODE', 'BINUNICODE', 'STRING', 'BINSTRING', 'BINBYTES', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE')
OTHER = 'it has an array of something other than bytes'


class _Type:
    """Name of a NumPy type; its byte order and the rest of its state do not matter for bytes."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class PickledArray:
    """Stand-in for an array of bytes, of its content, type, shape and order, or of a state that comes later.

    ``array``, of uint8, is None until then.

    Raises:
        UnpicklingError: for another type, or fewer or more bytes than the shape takes.
    """

    def __init__(self, *values: Any) -> None:
        self.array: np.ndarray | None = None
        if values:
            self._fill(*values)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self._fill(content, dtype, shape, 'F' if fortran else 'C')

    def _fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        if isinstance(content, str):  # of Python 2
            content = content.encode('latin1')
        if not isinstance(content, bytes | bytearray) or getattr(dtype, 'name', '') not in ('u1', '|u1', 'uint8'):
            raise pickle.UnpicklingError(OTHER)
        if not isinstance(shape, tuple) or len(shape) > 4 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError(OTHER)
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f'it has {len(content)} bytes for an array of {shape}')
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order='F' if order == 'F' else 'C')


class _Unpickler(pickle.Unpickler):
    """Knows the parts of an array, as NumPy 1 and 2 name them, and how Python 3 writes bytes for Python 2."""

    parts: ClassVar = {
        'numpy.dtype': _Type,
        'numpy.ndarray': None,  # only named
        '_codecs.encode': lambda text, _='latin1': str.encode(text, 'latin1'),
        'numpy.core.multiarray._reconstruct': lambda *_: PickledArray(),
        'numpy._core.multiarray._reconstruct': lambda *_: PickledArray(),
        'numpy.core.numeric._frombuffer': PickledArray,
        'numpy._core.numeric._frombuffer': PickledArray,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return a part of an array."""
        name = f'{module}.{name}'
        if name not in self.parts:
            raise pickle.UnpicklingError(f'it asks for {name}, which is not part of an array')

        def part(*values: Any) -> Any:  # a new one each time, as a pickle may set its attributes
            return self.parts[name](*values)

        return part


def _check(content: bytes) -> None:
    """Refuse what makes unpickling itself take memory or crash: large memo numbers, containers used twice."""
    memo: dict[int, str] = {}
    tuples, last = 0, ''
    for code, value, _ in pickletools.genops(content):
        tuples += 'TUPLE' in code.name
        wrong = tuples > TUPLES or code.name == 'DUP'
        if code.name == 'MEMOIZE':
            memo[len(memo)] = last
        elif code.name.endswith('PUT'):
            wrong |= not 0 <= value <= len(memo)
            memo[value] = last
        elif code.name.endswith('GET'):
            wrong |= memo.get(value, '').removeprefix('SHORT_').removesuffix('8') not in SHARED
        if wrong:
            raise pickle.UnpicklingError(f'its {code.name} does not occur in the pickle of an array')
        last = code.name


def load(content: bytes) -> Any:
    """Read a pickle of dicts, lists, text, numbers and arrays of bytes, each array as a :class:`PickledArray`.

    Raises:
        Exception: of many kinds, if the pickle is damaged or asks for anything else.
    """
    _check(content)
    return _Unpickler(io.BytesIO(content), encoding='latin1').load()
