"""Checks of options: an invalid value is refused in one sentence."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import UserError


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), close to GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        return x * (1.702 * x).sigmoid()


ACTIVATIONS = {
    'GELU': nn.GELU,
    'GELUTanh': partial(nn.GELU, approximate='tanh'),
    'QuickGELU': QuickGELU,
    'ReLU': nn.ReLU,
}


def at_least_one(name: str, value: Any) -> int:
    """Return ``value`` if it is a whole number from 1 up; else raise :class:`UserError` naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise UserError(f'{name} must be a whole number of at least 1, got {value!r:.80}.')
    return value


def whole_number(name: str, value: Any) -> int:
    """Return ``value`` if it is a whole number from 0 up; else raise :class:`UserError` naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f'{name} must be a whole number from 0 to below 2**63, got {value!r:.80}.')
    return value


def number(name: str, value: Any, low: float = -math.inf, below: float = math.inf) -> float:
    """Return ``value`` if it is a finite number in [low, below); else raise :class:`UserError` naming it."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308  # finite
    if not fits or not low <= value < below:
        span = '' if math.isinf(below) else f' from {low:g} to below {below:g}'
        raise UserError(f'{name} must be a number{span}, got {value!r:.80}.')
    return float(value)


def one_of(name: str, value: Any, valid: tuple[Any, ...]) -> Any:
    """Return ``value`` if it is among ``valid``; else raise :class:`UserError` listing them."""
    if not any(value is v or (type(value) is type(v) and value == v) for v in valid):
        choice = 'one of ' if len(valid) > 1 else ''
        raise UserError(f'{name} must be {choice}{", ".join(map(repr, valid))}; got {value!r}.')
    return value


def check_slots(slots: Any, valid: str = 'qkv') -> str:
    """Return ``slots`` if it has only letters of ``valid``, in their order; else raise :class:`UserError`."""
    ordered = isinstance(slots, str) and ''.join(s for s in valid if s in slots) == slots
    if not ordered or not slots:
        raise UserError(
            f'Unknown slots {slots!r}; valid: one or more of the letters {", ".join(valid)}, in this order.'
        )
    return slots
