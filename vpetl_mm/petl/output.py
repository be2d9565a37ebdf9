"""What its deltas make of a host's input and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from . import addition
from .addition import Additions
from .delta import Delta
from .deltas import deltas_of
from .exchange import plain_class
from .inner import Projection
from .update import Update, scaled, weights_of


def before(host: nn.Module, x: Tensor, at: str | None = None) -> Tensor:
    """Return the host's input as its deltas change it; those at the place ``at`` alone, where it is given."""
    for delta in deltas_of(host):
        x = delta.before(x) if at in (None, delta.at) else x
    return x


def behind(
    host: nn.Module,
    x: Tensor,
    y: Tensor,
    at: str | None = None,
    layer: nn.Module | Projection | None = None,
    later: Tensor | None = None,
) -> Tensor:
    """Return the host's output as its deltas change it; updates of weights come first.

    Args:
        host: the module.
        x: its input.
        y: its output.
        at: ask the deltas at this place alone. Defaults to None, all.
        layer: whose weights they update. Defaults to the host itself.
        later: the bias that the attention adds to ``y`` afterwards. Defaults to None: what the host knows of.
    """
    asked = _asked(host, at)
    if any(delta.reads == 'weights' for delta in asked):
        y = _updated(host, layer or host, x, y, later_bias(host) if later is None else later, at)
    for delta in (*(d for d in asked if d.is_update), *(d for d in asked if not d.is_update)):
        if delta.reads in ('input', 'output'):
            y = host.adder(host, delta, delta(x if delta.reads == 'input' else y), y)
        y = delta.after(y)
    return y


def add_from_stream(host: nn.Module, adder: Callable[..., Tensor], stream: Tensor, y: Tensor) -> Tensor:
    """Return ``y`` with what those deltas of ``host`` add that read the residual stream."""
    for delta in deltas_of(host):
        if delta.reads == 'stream':
            y = adder(host, delta, delta(stream), y)
    return y


def add_delta(host: nn.Module, delta: Delta, additions: Additions, y: Tensor) -> Tensor:
    """Return the host's output ``y`` with what ``delta`` adds to it.

    Args:
        host: the module; its attribute ``adder`` is this function, or another that returns the same.
        delta: one of its deltas.
        additions: what it adds.
        y: the output so far.
    """
    return addition.add(y, additions)


def change_first(y: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a module's output with its first tensor changed: it may be a tuple, as in transformers."""
    return (change(y[0]), *y[1:]) if isinstance(y, tuple) else change(y)


def _updated(
    host: nn.Module, layer: nn.Module | Projection, x: Tensor, y: Tensor, later: Tensor | None, at: str | None
) -> Tensor:
    """Return the output ``y`` of a layer as all updates of its weights change it."""
    own = bias_of(layer)
    updates = [(d, d.update(layer.weight, own)) for d in _asked(host, at) if d.reads == 'weights']
    if known := [u for _, u in updates if isinstance(u, Update)]:
        y = scaled(y, known, later, layer)
    for delta, update in updates:
        if isinstance(update, Update):
            y = host.adder(host, delta, update.additions(x), y) if update.low_rank else y
        else:
            weight, bias = update
            bias = bias if bias is None or own is None else bias - own
            y = y + _through(layer, weight - layer.weight, bias, x)
    return y


def _asked(host: nn.Module, at: str | None) -> list[Delta]:
    return [delta for delta in deltas_of(host) if at in (None, delta.at)]


def _through(layer: nn.Module | Projection, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return what a linear layer, a LayerNorm or an RMSNorm gives with other weights."""
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
    if 'rmsnorm' in type(layer).__name__.lower():  # torch's, or a library's own
        return F.rms_norm(x, tuple(weight.shape), weight, layer.eps)
    if weight.dim() != 2:
        kind = plain_class(layer).__name__
        raise UserError(f'Single entries are tuned in linear layers, LayerNorm and RMSNorm, not in {kind}.')
    return F.linear(x, weight, bias)


def change_of_weights(layer: nn.Module | Projection, delta: Delta) -> tuple[Tensor, Tensor | None]:
    """Return what an update adds to the weight and the bias of a layer; the bias is None where both have none."""
    own = bias_of(layer)
    weight, bias = weights_of(delta.update(layer.weight, own), layer.weight, own)
    if bias is None:
        return weight - layer.weight, None
    return weight - layer.weight, bias if own is None else bias - own


def bias_of(layer: nn.Module | Projection) -> Tensor | None:
    """Return the whole bias of a layer's output, (d_out,), wherever it is added; None where there is none."""
    own = getattr(layer, 'bias', None)  # an RMSNorm has none
    return own if own is not None or isinstance(layer, Projection) else later_bias(layer)


def later_bias(layer: nn.Module) -> Tensor | None:
    """Return the bias of a layer's output that its attention adds afterwards, (3 d,); None for none."""
    if 'adds_later' not in layer.__dict__:
        return None
    attention, names = layer.adds_later
    parts = [getattr(attention, name, None) if name else None for name in names]
    known = next((part for part in parts if part is not None), None)
    return None if known is None else torch.cat([torch.zeros_like(known) if p is None else p for p in parts])
