"""Spaces of settings, as a person writes them: ``log(1e-4,1e-1)``, ``uniform(0.1,1)``, ``int(1,8)``, ``[32,64]``."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from ..errors import UserError, shortened

KINDS = ('log', 'uniform', 'int')
FORMS = 'log(1e-4,1e-1), uniform(0.1,1), int(1,8) or [32,64,128]'
MOST = 1000  # characters of a space
LARGEST = 2**53  # whole number: Optuna keeps them as floats


@dataclass(frozen=True)
class Space:
    """The values that one setting may take.

    Args:
        kind: ``'log'`` (the logarithm is uniform), ``'uniform'``, ``'int'`` or ``'list'``.
        values: the lowest and the highest, both included; of a list, all of them: numbers, text, True, False, None.
    """

    kind: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        shown = ','.join(map(_shown, self.values))
        return f'[{shown}]' if self.kind == 'list' else f'{self.kind}({shown})'

    def __contains__(self, value: Any) -> bool:
        if self.kind == 'list':
            return any(type(v) is type(value) and v == value for v in self.values)
        number = isinstance(value, int if self.kind == 'int' else (int, float)) and type(value) is not bool
        return number and self.values[0] <= value <= self.values[1]

    def points(self) -> Sequence[Any]:
        """Return every value of a list or of whole numbers."""
        return self.values if self.kind == 'list' else range(self.values[0], self.values[1] + 1)


def _shown(value: Any) -> str:
    """Return a value as it is read again: without quotes a plain word alone."""
    plain = isinstance(value, str) and value.isascii() and value.isidentifier() and not iskeyword(value)
    return value if plain else repr(value)


def parse_space(key: str, given: Any) -> Space:
    """Return the space of a setting; nothing in the text is executed.

    Args:
        key: the setting's, for messages.
        given: text in one of the forms of :data:`FORMS`, or a list of values.

    Raises:
        UserError: when it cannot be read, or is empty.
    """
    if isinstance(given, (list, tuple)):
        return _list(key, given)
    text = str(given).strip()
    try:
        tree = ast.parse(text, mode='eval').body if len(text) <= MOST else None
        match tree:
            case ast.Call(func=ast.Name(id=kind), args=[low, high], keywords=[]) if kind in KINDS:
                return _range(key, kind, _value(low), _value(high))
            case ast.List(elts=parts):
                return _list(key, [_value(part) for part in parts])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
    raise UserError(f'The space of {key} cannot be read, {shortened(text, 80)!r}: a space is {FORMS}.')


def _value(node: ast.expr) -> Any:
    """Return a number, text (with quotes or, a single word, without), True, False or None."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id=word):
            return word
    raise ValueError


def _range(key: str, kind: str, low: Any, high: Any) -> Space:
    wanted = int if kind == 'int' else (int, float)
    if not all(isinstance(v, wanted) and type(v) is not bool and _is_number(v) for v in (low, high)):
        what = 'two whole numbers up to 2**53' if kind == 'int' else 'two numbers'
        raise UserError(f'The space of {key}, {kind}({shortened(low, 80)},{shortened(high, 80)}), needs {what}.')
    if low >= high:
        raise UserError(f'The space of {key}, {kind}({low},{high}), is empty: the lower end comes first.')
    if kind == 'log' and low <= 0:
        raise UserError(f'The space of {key}, log({low},{high}), must begin above 0.')
    return Space(kind, (low, high) if kind == 'int' else (float(low), float(high)))


def _list(key: str, values: Any) -> Space:
    if not all(v is None or isinstance(v, (bool, int, float, str)) for v in values):
        raise UserError(f'The space of {key} is a list of something else than numbers and words: {list(values)}.')
    if not all(_is_number(v) for v in values if isinstance(v, (int, float))):
        raise UserError(f'The space of {key} has a number that is not finite, or a whole one beyond 2**53.')
    kept = tuple({(type(v), v): v for v in values}.values())
    if len({*kept}) < len(kept):  # Optuna finds a value in a list by ==
        raise UserError(f'The space of {key}, {list(values)}, has values that are equal, such as 1, 1.0 and True.')
    if len(kept) < 2:
        raise UserError(f'The space of {key}, {list(values)}, leaves nothing to choose: name two values or more.')
    if len(str(space := Space('list', kept))) > MOST:
        raise UserError(f'The space of {key} is longer than {MOST} characters.')
    return space


def _is_number(value: float) -> bool:
    return abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)


def parse_spaces(given: Mapping[str, Any]) -> dict[str, Space]:
    """Return the space of every key; raises as :func:`parse_space`."""
    return {key: parse_space(key, value) for key, value in given.items()}
