"""Delta: a small trained module on a frozen host."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from .checks import number, one_of
from .extra_tokens import ExtraTokens
from .grid import Grid
from .inner import Inner, Projection
from .update import Updated


@dataclass(frozen=True)
class Site:
    """A host module that a delta can sit on.

    Args:
        name: the module's path below the backbone, such as ``layers.0.blocks.0.attn.qkv``.
        host: the module itself.
        place: its name in the place table, such as ``'qkv'`` or ``'mlp'``.
        in_dim: the width of its input.
        out_dim: the width of its output.
        slots: the equal parts of its output: ``'qkv'`` for a fused projection, else ``''``.
        norm: the norm in front of the block's attention; None where there is none.
        inner: the inside of its attention, where the host is one, or its projection, and is opened.
        block: the block that it is in.
        attention: the block's whole attention, its output projection included.
        proj: the output projection of its attention, where the host is one.
        grid: where the tokens that it sees lie; None where they lie in windows, or are not known.
        depth: the number of its block, from 0.
        projection: its attention's projection to q, k and v, where the host is the attention.
        behind_heads: what its attention does with its heads, joined, where the host is the attention: the output
            projection, and LayerScale where there is one inside; nothing where neither is inside.
    """

    name: str
    host: nn.Module
    place: str
    in_dim: int
    out_dim: int
    slots: str = ''
    norm: nn.Module | None = None
    inner: Inner | None = None
    block: nn.Module | None = None
    attention: nn.Module | None = None
    proj: nn.Module | None = None
    grid: Grid | None = None
    depth: int = 0
    projection: Projection | None = None
    behind_heads: tuple[nn.Module, ...] = ()

    @property
    def width(self) -> int:
        """The width of one slot of its output."""
        return self.out_dim // max(len(self.slots), 1)

    @property
    def layer(self) -> nn.Module | Projection:
        """The layer whose weight and bias an update changes: the host, or the projection of an opened attention."""
        is_layer = self.inner is None or isinstance(self.host, nn.Linear)
        return self.host if is_layer else Projection(self.host, self.inner)

    @property
    def num_heads(self) -> int:
        """The number of heads of its attention.

        Raises:
            UserError: where the attention does not say it.
        """
        for part in (self.host, self.attention, getattr(self.host, 'config', None)):
            for name in ('num_heads', 'num_attention_heads'):
                if isinstance(heads := getattr(part, name, None), int):
                    return heads
        raise UserError(f'{type(self.host).__name__} does not say how many heads it has.')

    def known_grid(self, name: str) -> Grid:
        """Return the grid, for the method ``name``; raise :class:`UserError` where there is none."""
        if self.grid is None:
            raise UserError(
                f'{name} needs tokens in a known grid of frames, rows and columns; those of '
                f'{type(self.block).__name__} lie in windows, or pass in another order.'
            )
        return self.grid


class Delta(nn.Module, ABC):
    """Base of all deltas.

    A host asks its deltas, one after the other in the order of the config; each overrides what it needs:

    ``before(x)``
        changes the host's input.
    ``update(weight, bias)``
        changes the host's weights, where ``reads`` is ``'weights'``; updates come before whatever reads the output.
    ``forward(x)``
        returns what is added to the host's output: an :class:`~.addition.Addition`, several, or a tensor.
    ``after(y)``
        changes the host's output.
    ``extra_tokens(x, project)``
        returns keys and values for the attention, where ``joins_attention`` is true.

    Attributes:
        places: where the delta may be put.
        default_at: the default of ``at``: () for the first of ``places``, or several.
        reads: what ``forward`` is given: the host's ``'input'`` (default) or ``'output'``, or ``'stream'``, the
            residual stream before the norm, with the result added outside drop-path. ``'norm'``, between attention
            and MLP: the output of the norm in front of the attention. ``'weights'``: ``update`` is called instead;
            None: neither is.
        joins_attention: whether the delta brings keys and values.
        adds_tokens: whether further tokens pass through the blocks.
        needs_grid: whether it has to know in which frame, row and column each token is.
        needs_same_tokens: whether every block has to see the same tokens.
        starts_plain: whether step 0 is the plain backbone, exactly; an option may decide it.
        at: the place where it is; set when it is put there.
        shared: the module that holds what all sites share; see :meth:`share`.
    """

    places: ClassVar[tuple[str, ...]] = ()
    default_at: ClassVar[tuple[str, ...]] = ()
    reads: str | None = 'input'
    joins_attention: bool = False
    adds_tokens: bool = False
    needs_grid: bool = False
    needs_same_tokens: bool = False
    starts_plain: bool = True
    at: str = ''
    shared: nn.Module | None = None

    @classmethod
    def place_of(cls, options: Mapping[str, Any]) -> str | tuple[str, ...]:
        """Return the place, or the places, of a delta whose config has no ``at``."""
        return cls.default_at or cls.places[0]

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build the deltas for all sites of a place; one per site unless overridden."""
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
        known = options_of(cls)
        for name in options:
            if name not in known:
                raise unknown(f'option of {cls.__name__}', name, ['at', *known])
        for name, parameter in known.items():
            if parameter.default is inspect.Parameter.empty and name not in options:
                raise UserError(f'{cls.__name__} needs {name}.')

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the delta's initial values again."""

    def share(self, shared: nn.Module) -> None:
        """Read what all sites share; the backbone owns it, as ``deltas.<name>``, and counts it once."""
        self.__dict__['shared'] = shared  # no child

    @property
    def is_update(self) -> bool:
        """Whether it changes the host's weights, whatever ``forward`` may do in place of :meth:`update`."""
        return type(self).update is not Delta.update

    def before(self, x: Tensor) -> Tensor:
        """Return the host's input; ``x`` unless a delta changes it."""
        return x

    def after(self, y: Tensor) -> Tensor:
        """Return the host's output; ``y`` unless a delta changes it."""
        return y

    def update(self, weight: Tensor, bias: Tensor | None) -> Updated:
        """Return how the host's weight and bias change, or both changed; forward pass and merging follow from it.

        Every update sees the host's own weights, and their changes add up.

        Args:
            weight: of a linear layer, (d_out, d_in), of a convolution, (d_out, d_in, ...), or of a norm, (d,).
            bias: (d_out,), also where the attention adds it later; None where there is none.
        """
        raise NotImplementedError  # only asked where reads is 'weights'

    def extra_tokens(self, x: Tensor, project: Callable[[Tensor], Tensor]) -> ExtraTokens:
        """Return keys and values that join those of the tokens.

        Args:
            x: the attention's input, (B, N, d).
            project: its full qkv projection, (..., d) to (..., 3 d), deltas and biases included.
        """
        raise NotImplementedError  # only asked where joins_attention is true

    def _set_scale(self, scale: float, learn_scale: bool | str, width: int = 0) -> None:
        """Hold the strength s as a number, as a trained scalar that starts there, or as one for each channel.

        Args:
            scale: where it starts.
            learn_scale: False, True, or ``'channel'``, where the number of channels is given.
            width: the number of channels. Defaults to 0, not given.
        """
        one_of('learn_scale', learn_scale, (True, False, 'channel') if width else (True, False))
        self.initial_scale = number('scale', scale)
        start = torch.full((width,) if learn_scale == 'channel' else (), self.initial_scale)
        self.scale = nn.Parameter(start) if learn_scale else self.initial_scale

    def _reset_scale(self) -> None:
        if isinstance(self.scale, nn.Parameter):
            nn.init.constant_(self.scale, self.initial_scale)


class LinearDelta(Delta):
    """Base of the deltas of linear layers: ``(in_dim, out_dim, host_slots, **options)``, out_dim that of one slot."""

    places = ('qkv', 'proj', 'fc1', 'fc2')

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for a plain or a fused linear layer."""
        cls.check_options(options)
        return cls(site.in_dim, site.width, site.slots, **options)


def options_of(cls: type[Delta]) -> dict[str, inspect.Parameter]:
    """Return the options of a delta's config, besides ``type`` and ``at``."""
    parameters = inspect.signature(cls.__init__).parameters
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def defaults_of(cls: type[Delta]) -> dict[str, Any]:
    """Return the options that have a default, with their defaults."""
    return {n: p.default for n, p in options_of(cls).items() if p.default is not p.empty}
