"""Hosts: modules of other libraries' models that carry deltas, with their weights and keys unchanged.

The class of a host is exchanged, in place, for a cached subclass whose forward asks the deltas in ``host.deltas``.
The host keeps its weights, so a plain checkpoint fits; deltas stack.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta
from .deltas import Deltas
from .exchange import become, exchange, exchange_back, exchange_innermost, exchanged, plain_class
from .output import add_delta, add_from_stream, before, behind, change_first


def taken(args: tuple, kwargs: dict[str, Any], name: str) -> tuple[Any, tuple, dict[str, Any]]:
    """Return the first argument of a call, which may be given by its name, and the others."""
    if args:
        return args[0], args[1:], kwargs
    return kwargs[name], (), {k: v for k, v in kwargs.items() if k != name}


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
    if name in host._modules.get('deltas', ()):
        raise UserError(f'petl.deltas.{name}: {plain_class(host).__name__} has a delta of this name already.')
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
        exchange_back(host, deltas.how[0])
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
        (exchange_innermost if deltas.how[0] is hosted_class else exchange)(host, *deltas.how)
