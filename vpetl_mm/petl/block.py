"""Blocks whose MLP is no module, or which add the residual stream outside any method: deltas on them.

A module notes its input, and a later one reads it: the MLP's first part for its last, and the norm in front of the
MLP for the block. No tensor stays noted between two forward passes. What embeds patches notes how many there are.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import Tensor, nn

from . import addition
from .deltas import deltas_of
from .exchange import exchanged
from .host import passing_deltas, taken
from .output import add_delta, add_from_stream, before, behind, change_first

RESIDUALS = ('input_tensor', 'residual')  # what a last part calls the stream that it adds itself


@cache
def first_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of an MLP's first part, which holds the deltas and notes its input for the last."""
    names = [*inspect.signature(plain.forward).parameters][1:]
    members = dict(forward=_first, adder=staticmethod(add_delta), names=names, **passing_deltas(plain))
    return exchanged(f'First{plain.__name__}', (first_class, plain), **members)


def _first(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    x, args, kwargs = taken(args, kwargs, self.names[0])
    self.noted = before(self, x)
    return plain.forward(self, self.noted, *args, **kwargs)


@cache
def last_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of an MLP's last part, to whose output the deltas of ``self.first[0]`` add."""
    names = [*inspect.signature(plain.forward).parameters][1:]
    members = dict(forward=_last, stream=next((n for n in names if n in RESIDUALS), None), names=names)
    return exchanged(f'Last{plain.__name__}', (last_class, plain), **members)


def _last(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    (first,) = self.first
    if not deltas_of(first):
        return plain.forward(self, *args, **kwargs)
    x, first.noted = first.noted, None
    if self.stream is None:
        return behind(first, x, plain.forward(self, *args, **kwargs))
    h, args, kwargs = taken(args, kwargs, self.names[0])
    stream, args, kwargs = taken(args, kwargs, self.stream)
    y = plain.forward(self, h, 0, *args, **kwargs)  # the branch alone
    return stream + behind(first, x, y)


@cache
def block_class(plain: type[nn.Module], norm: str, mlp: str, sized: str = '') -> type[nn.Module]:
    """Return the subclass of a block that asks its deltas, and those of its MLP that read the residual stream.

    Args:
        plain: the block's class; its output is the stream behind the norm plus the MLP's branch.
        norm: the attribute of the norm in front of the MLP, which has become a :func:`noting_class`.
        mlp: the attribute of the MLP, or of its first part; '' where others serve what reads the stream.
        sized: the argument that holds (H, W) of the tokens, where a block in windows is given them in one row.
    """
    names = [*inspect.signature(plain.forward).parameters][1:]
    recipe = (block_class, plain, norm, mlp, sized)
    members = dict(forward=_block, norm_name=norm, mlp_name=mlp, sized=sized, names=names)
    return exchanged(f'Hosted{plain.__name__}', recipe, adder=staticmethod(add_delta), **members)


def _block(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    x, args, kwargs = taken(args, kwargs, self.names[0])
    for grid in self.__dict__.get('token_grids', ()):
        grid.note(x, {**dict(zip(self.names[1:], args, strict=False)), **kwargs}.get(self.sized))
    x = before(self, x, 'block')
    norm = getattr(self, self.norm_name)
    norm.awaited = True
    try:  # a checkpoint may stop when it has computed again what it needs
        y = plain.forward(self, x, *args, **kwargs)
        stream, change = norm.noted
    finally:
        norm.noted, norm.awaited = None, False
        if norm.first_norm[0] is not None:
            norm.first_norm[0].noted = None

    def changed(y: Tensor) -> Tensor:
        y = y if change is None else y + change.view_as(y)
        if self.mlp_name:
            y = add_from_stream(getattr(self, self.mlp_name), add_delta, stream.view_as(y), y)
        return behind(self, x, y, 'block')

    return change_first(y, changed)


@cache
def noting_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of the norm in front of an MLP, which notes the stream for its block, ``self.block[0]``."""
    return exchanged(f'Noting{plain.__name__}', (noting_class, plain), forward=_norm)


def _norm(self: nn.Module, plain: type[nn.Module], x: Tensor) -> Tensor:
    between = [d for d in deltas_of(self.block[0]) if d.at == 'between']
    stream = x
    for delta in between:
        stream = delta.before(stream)
        if delta.reads == 'norm':
            stream = addition.add(stream, delta(self.first_norm[0].noted.view_as(x)))
        elif delta.reads is not None:
            stream = addition.add(stream, delta(stream))
    if between and self.first_norm[0] is not None:
        self.first_norm[0].noted = None
    if self.awaited:  # not where a branch is computed again in the backward pass
        self.noted = (stream, stream - x if between else None)
    return plain.forward(self, stream)


@cache
def kept_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of the norm in front of an attention, which notes its output for what reads it later."""
    return exchanged(f'Kept{plain.__name__}', (kept_class, plain), forward=_kept)


def _kept(self: nn.Module, plain: type[nn.Module], x: Tensor) -> Tensor:
    y = plain.forward(self, x)
    self.noted = y if self.noted is None else self.noted  # prompts pass it too, later
    return y


@cache
def sizing_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of a convolution that embeds patches, which tells ``self.grids`` of what size they are."""
    return exchanged(f'Sizing{plain.__name__}', (sizing_class, plain), forward=_sizing)


def _sizing(self: nn.Module, plain: type[nn.Module], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    y = plain.forward(self, x, *args, **kwargs)
    for grid in self.grids:
        grid.note_patches(y.shape[2:])
    return y
