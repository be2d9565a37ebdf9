"""Hosts: modules of other libraries' models that carry deltas, with their weights and keys unchanged.

The class of a host is exchanged, in place, for a cached subclass whose forward asks the deltas in ``host.deltas``.
The host keeps its weights, so a plain checkpoint fits; deltas stack.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from . import addition
from .addition import Additions
from .delta import Delta
from .exchange import become, exchange, exchanged, plain_class
from .inner import Projection
from .update import Update, scaled, weights_of


class Deltas(nn.ModuleDict):
    """The deltas of one host.

    Args:
        how: the function that returns the host's class from its own, and further arguments; None where the host's
            attention asks them, past the host's own ``forward``.

    Attributes:
        silent: whether the host acts as if it had none, for the length of a call; see :func:`without_deltas`.
    """

    def __init__(self, how: tuple | None) -> None:
        super().__init__()
        self.how, self.silent = how, False


def deltas_of(host: nn.Module | None) -> list[Delta]:
    """Return the deltas of a module; none where it is no host, or they are silent."""
    deltas = host._modules.get('deltas') if host is not None else None
    return [] if deltas is None or deltas.silent else [d for d in deltas.values() if isinstance(d, Delta)]


def without_deltas(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module as it was before any delta sat on it, or on what is in it."""
    own = [m for m in module.modules() if isinstance(m, Deltas)]
    for deltas in own:
        deltas.silent = True
    try:
        return module(*args, **kwargs)
    finally:
        for deltas in own:
            deltas.silent = False


def taken(args: tuple, kwargs: dict[str, Any], name: str) -> tuple[Any, tuple, dict[str, Any]]:
    """Return the first argument of a call, which may be given by its name, and the others."""
    if args:
        return args[0], args[1:], kwargs
    return kwargs[name], (), {k: v for k, v in kwargs.items() if k != name}


def change_first(y: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a module's output with its first tensor changed: it may be a tuple, as in transformers."""
    return (change(y[0]), *y[1:]) if isinstance(y, tuple) else change(y)


@cache
def hosted_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of ``plain`` that asks ``self.deltas``."""
    names = [*inspect.signature(plain.forward).parameters][1:]
    forward = _forward_with_identity if 'identity' in names else _forward  # such as mmcv's FFN
    members = dict(forward=forward, adder=staticmethod(add_delta), names=names)
    return exchanged(f'Hosted{plain.__name__}', (hosted_class, plain), **members, **passing_deltas(plain))


def passing_deltas(plain: type[nn.Module]) -> dict[str, Any]:
    """Return what a host of class ``plain`` needs so that nn.Sequential, which runs all children, passes deltas."""
    if not issubclass(plain, nn.Sequential):
        return {}
    return {'__iter__': lambda self: (m for m in self._modules.values() if not isinstance(m, Deltas))}


def _forward(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    x, args, kwargs = taken(args, kwargs, self.names[0])
    x = before(self, x)
    y = plain.forward(self, x, *args, **kwargs)
    return change_first(y, lambda first: behind(self, x, first))


def _forward_with_identity(
    self: nn.Module, plain: type[nn.Module], x: Tensor, identity: Tensor | None = None
) -> Tensor:
    """Run an MLP that may add the residual stream itself: the branch, the deltas on it, then the stream."""
    stream = x if identity is None else identity
    x = before(self, x)
    if not self.add_identity:
        return behind(self, x, plain.forward(self, x))
    y = behind(self, x, plain.forward(self, x, identity=0))
    return stream + add_from_stream(self, self.adder, stream, y)


def before(host: nn.Module, x: Tensor, at: str | None = None) -> Tensor:
    """Return the host's input as its deltas change it; those at the place ``at`` alone, where it is given."""
    for delta in deltas_of(host):
        x = delta.before(x) if at in (None, delta.at) else x
    return x


def later_bias(layer: nn.Module) -> Tensor | None:
    """Return the bias of a layer's output that its attention adds afterwards, (3 d,); None for none."""
    if 'adds_later' not in layer.__dict__:
        return None
    attention, names = layer.adds_later
    parts = [getattr(attention, name, None) if name else None for name in names]
    known = next((part for part in parts if part is not None), None)
    return None if known is None else torch.cat([torch.zeros_like(known) if p is None else p for p in parts])


def bias_of(layer: nn.Module | Projection) -> Tensor | None:
    """Return the whole bias of a layer's output, (d_out,), wherever it is added; None where there is none."""
    own = getattr(layer, 'bias', None)  # an RMSNorm has none
    return own if own is not None or isinstance(layer, Projection) else later_bias(layer)


def change_of_weights(layer: nn.Module | Projection, delta: Delta) -> tuple[Tensor, Tensor | None]:
    """Return what an update adds to the weight and the bias of a layer; the bias is None where both have none."""
    own = bias_of(layer)
    weight, bias = weights_of(delta.update(layer.weight, own), layer.weight, own)
    if bias is None:
        return weight - layer.weight, None
    return weight - layer.weight, bias if own is None else bias - own


def _updated(
    host: nn.Module, layer: nn.Module | Projection, x: Tensor, y: Tensor, later: Tensor | None, at
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


def _asked(host: nn.Module, at: str | None) -> list[Delta]:
    return [delta for delta in deltas_of(host) if at in (None, delta.at)]


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
    for delta in asked:
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


@cache
def branch_class(plain: type[nn.Module], method: str, host: str) -> type[nn.Module]:
    """Return the subclass of a block whose branch adds those deltas of ``host`` that read the residual stream.

    Args:
        plain: the block's class.
        method: the method of (B, ..., d) to (B, ..., d) that computes the branch, drop-path included.
        host: the attribute that holds the deltas' host, such as ``'mlp'``.
    """

    def branch(self: nn.Module, x: Tensor) -> Tensor:
        return add_from_stream(getattr(self, host), add_delta, x, getattr(plain, method)(self, x))

    recipe = (branch_class, plain, method, host)
    return exchanged(f'Branched{plain.__name__}', recipe, **{method: branch, 'branched': True})


def attach(host: nn.Module, name: str, delta: Delta, at: str = '', how: tuple | None = (hosted_class,)) -> None:
    """Put ``delta`` on ``host`` as ``host.deltas.<name>``.

    Args:
        host: the module.
        name: of the delta.
        delta: built for this host.
        at: its place. Defaults to '', for a host of one place.
        how: of :class:`Deltas`. Defaults to a module that asks its deltas around its own ``forward``.

    Raises:
        UserError: when ``name`` is not an identifier, or is an attribute of nn.ModuleDict.
    """
    if not name.isidentifier() or hasattr(Deltas(None), name):
        raise UserError(f'{name!r} cannot name a delta: choose an identifier such as "patt" or "adapter".')
    delta.at = at
    if 'deltas' not in host._modules:
        reattach(host, Deltas(how))
    elif host.deltas.how != how:
        there = ', '.join(host.deltas)
        raise UserError(f'petl.deltas.{name}: at {at!r} it would share a module with {there}, at another place.')
    host.deltas[name] = delta
    host.deltas.train(host.training)


def share(backbone: nn.Module, name: str, shared: nn.Module) -> None:
    """Let a backbone own what the deltas called ``name`` share, as ``deltas.<name>``."""
    if 'deltas' not in backbone._modules:
        backbone.deltas = Deltas(None)
    backbone.deltas[name] = shared


def of_delta(name: str) -> bool:
    """Tell whether a path of a parameter is that of a delta's."""
    return '.deltas.' in f'.{name}'


def attach_branch(block: nn.Module, method: str, host: str) -> None:
    """Let ``block`` add the residual-stream deltas of its child ``host`` outside drop-path."""
    with own_class(block):
        if not getattr(block, 'branched', False):
            become(block, branch_class(type(block), method, host))


@contextmanager
def own_class(host: nn.Module) -> Iterator[None]:
    """Take the deltas of a module off while its class is exchanged for another: theirs comes last."""
    own = detach(host) if 'deltas' in host._modules else None
    yield
    if own is not None:
        reattach(host, own)


def detach(host: nn.Module) -> Deltas:
    """Give the host its own class back and return its deltas; the inverse of :func:`attach`."""
    deltas = host.deltas
    del host.deltas
    if deltas.how is not None:
        become(host, type(host).recipe[1])
    return deltas


def strip(host: nn.Module) -> None:
    """Take the deltas off a host for good, with all that it remembers of them."""
    detach(host)
    for name in ('adder', 'noted', 'adds_later'):
        host.__dict__.pop(name, None)


def reattach(host: nn.Module, deltas: Deltas) -> None:
    """Put back what :func:`detach` took."""
    host.deltas = deltas
    if deltas.how is None:
        host.adder = add_delta
    else:
        exchange(host, *deltas.how)
