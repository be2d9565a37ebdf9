"""What every delta is: a small trained module beside a frozen host."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown


@dataclass(frozen=True)
class Site:
    """One host module that a delta can sit on.

    Args:
        name: the module's path below the backbone, such as ``layers.0.blocks.0.attn.qkv``.
        host: the module itself.
        place: its name in the place table, such as ``'qkv'`` or ``'mlp'``.
        in_dim: the width of its input.
        out_dim: the width of its output.
        slots: what equal parts its output is made of: ``'qkv'`` for a fused projection, else ``''``.
        norm: the norm in front of the block's attention.
    """

    name: str
    host: nn.Module
    place: str
    in_dim: int
    out_dim: int
    slots: str = ''
    norm: nn.Module | None = None


class Delta(nn.Module, ABC):
    """Base of all deltas: ``forward(x, y)`` takes its host's input and output and returns the new output.

    Attributes:
        places: where the delta may be put; the first is the default of ``at``.
        stream: ``'host'`` when ``x`` is what the host sees; ``'residual'`` when it is the residual stream
            before the norm and the result is added outside drop-path; ``'keys'`` when the delta has
            ``extra_tokens`` in place of ``forward``, keys and values for the attention.
        has_inplace: whether ``forward`` takes ``inplace``; the host, whose output ``y`` is, then passes True,
            and ``y`` may be overwritten.
    """

    places: ClassVar[tuple[str, ...]] = ()
    stream: str = 'host'
    has_inplace: ClassVar[bool] = False

    @classmethod
    def place_of(cls, options: Mapping[str, Any]) -> str:
        """The place of a delta whose config has no ``at``."""
        return cls.places[0]

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build the deltas for all sites of a place; one each, unless a delta knows better."""
        return ((site, cls.at_site(site, **options)) for site in sites)

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for one site.

        Raises:
            UserError: for an option that does not exist, is missing, or has a wrong value.
        """
        cls.check_options(options)
        return cls(site.in_dim, **options)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise :class:`UserError` for unknown or missing options, before anything is built."""
        parameters = inspect.signature(cls.__init__).parameters
        known = {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        for name in options:
            if name not in known:
                raise unknown(f'option of {cls.__name__}', name, ['at', *known])
        for name, parameter in known.items():
            if parameter.default is inspect.Parameter.empty and name not in options:
                raise UserError(f'{cls.__name__} needs {name}.')

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the delta's initial values anew; every subclass says how."""

    def before(self, x: Tensor) -> Tensor:
        """What the host sees in place of ``x``; the same, unless a delta puts something in front."""
        return x

    def merge(self, host: nn.Module, biases: Sequence[tuple[nn.Parameter, int]]) -> None:
        """Add the delta to its host's weights for good, where it is an update of weights.

        Args:
            host: the module that it sits on.
            biases: the parameters that make up the bias of the host's output, each with the position it begins at.

        Raises:
            UserError: where it is none.
        """
        raise UserError(f'{type(self).__name__} is no update of weights and cannot be merged into them.')

    def _set_scale(self, scale: float, learn_scale: bool) -> None:
        """Hold the strength s as a number, or as a trained scalar that starts there."""
        one_of('learn_scale', learn_scale, (True, False))
        self.initial_scale = number('scale', scale)
        self.scale = nn.Parameter(torch.tensor(self.initial_scale)) if learn_scale else self.initial_scale

    def _reset_scale(self) -> None:
        if isinstance(self.scale, nn.Parameter):
            nn.init.constant_(self.scale, self.initial_scale)


class LinearDelta(Delta):
    """Base of deltas of a linear layer: ``(in_dim, out_dim, host_slots, **options)``, d_out that of one slot."""

    places = ('qkv', 'proj', 'fc1', 'fc2')

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for a plain or a fused linear layer."""
        cls.check_options(options)
        return cls(site.in_dim, site.out_dim // max(len(site.slots), 1), site.slots, **options)


def defaults_of(cls: type[Delta]) -> dict[str, Any]:
    """The options of a delta that have a default, with it."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    options = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
    return {p.name: p.default for p in options}


def at_least_one(name: str, value: Any) -> int:
    """``value`` when it is a whole number from 1 up, else a :class:`UserError` naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f'{name} must be a whole number of at least 1, got {value!r}.')
    return value


def number(name: str, value: Any, low: float = -math.inf, below: float = math.inf) -> float:
    """``value`` when it is a finite number in [low, below), else a :class:`UserError` naming it."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value < below:
        span = '' if math.isinf(below) else f' from {low:g} to below {below:g}'
        raise UserError(f'{name} must be a number{span}, got {value!r}.')
    return float(value)


def one_of(name: str, value: Any, valid: tuple[Any, ...]) -> Any:
    """``value`` when it is among ``valid``, else a :class:`UserError` that lists them."""
    if not any(value is v or (type(value) is type(v) and value == v) for v in valid):
        choice = 'one of ' if len(valid) > 1 else ''
        raise UserError(f'{name} must be {choice}{", ".join(map(repr, valid))}; got {value!r}.')
    return value


def check_slots(slots: Any, valid: str = 'qkv') -> str:
    """``slots`` when it is made of ``valid``'s letters, in their order and each at most once."""
    ordered = isinstance(slots, str) and ''.join(s for s in valid if s in slots) == slots
    if not ordered or not slots:
        raise UserError(
            f'Unknown slots {slots!r}; valid: one or more of the letters {", ".join(valid)}, in this order.'
        )
    return slots


def add_to_slots(y: Tensor, updates: Mapping[str, Tensor], slots: str) -> Tensor:
    """Add each update to its equal part of ``y``.

    Args:
        y: the host's output, (..., len(slots) * d).
        updates: slot letter -> (..., d).
        slots: the parts of ``y`` in order, such as ``'qkv'``.

    Returns:
        A tensor of the shape of ``y``.
    """
    parts = zip(slots, y.chunk(len(slots), dim=-1), strict=True)
    return torch.cat([part + updates[s] if s in updates else part for s, part in parts], dim=-1)
