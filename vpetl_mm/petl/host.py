"""Hosts: modules of other libraries' models that carry deltas, with their weights and keys unchanged.

The class of a host is exchanged, in place, for a cached subclass whose forward asks the deltas in ``host.deltas``.
The host keeps its weights, so a plain checkpoint fits; deltas stack; deepcopy, pickle and torch.compile work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from . import addition
from .delta import Delta


class Exchanged:
    """Base of the classes created here, which are pickled as the recipe that creates them."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _blank, (_recipe(type(self)),), self.__getstate__()


def exchanged(name: str, recipe: tuple, **members: Any) -> type[nn.Module]:
    """Return a subclass of a module's class.

    Args:
        name: of the subclass.
        recipe: an importable function that creates it, and its arguments: the module's class, then names.
        members: of the subclass.
    """
    plain = recipe[1]
    bases = (plain,) if issubclass(plain, Exchanged) else (Exchanged, plain)
    return type(name, bases, dict(members, plain=plain, recipe=recipe, __module__=plain.__module__))


def _recipe(cls: type) -> Any:
    """Return the recipe of a class created here, down to a class that can be imported, which is returned as it is."""
    if not issubclass(cls, Exchanged):
        return cls
    make, plain, *names = cls.recipe
    return make, _recipe(plain), *names


def _made(recipe: Any) -> type:
    if isinstance(recipe, type):
        return recipe
    make, plain, *names = recipe
    return make(_made(plain), *names)


def _blank(recipe: Any) -> nn.Module:
    cls = _made(recipe)
    return cls.__new__(cls)


def exchange_plain(module: nn.Module, cls: type[nn.Module]) -> None:
    """Exchange the class that ``module`` had before it became a host for ``cls``, a subclass of it."""
    recipe = _recipe(type(module))

    def within(recipe: Any) -> Any:
        return cls if isinstance(recipe, type) else (recipe[0], within(recipe[1]), *recipe[2:])

    module.__class__ = _made(within(recipe))


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that ``module`` had before it became a host."""
    recipe = _recipe(type(module))
    while not isinstance(recipe, type):
        recipe = recipe[1]
    return recipe


@cache
def hosted_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of ``plain`` that asks ``self.deltas``."""
    takes_identity = 'identity' in inspect.signature(plain.forward).parameters  # such as mmcv's FFN
    forward = _forward_with_identity if takes_identity else _forward
    return exchanged(f'Hosted{plain.__name__}', (hosted_class, plain), forward=forward, adder=staticmethod(add_delta))


def _forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    x = _before(self, x)
    return _behind(self, x, self.plain.forward(self, x, *args, **kwargs))


def _forward_with_identity(self: nn.Module, x: Tensor, identity: Tensor | None = None) -> Tensor:
    """Run an MLP that may add the residual stream itself: the branch, the deltas on it, then the stream."""
    stream = x if identity is None else identity
    x = _before(self, x)
    if not self.add_identity:
        return _behind(self, x, self.plain.forward(self, x))
    y = _behind(self, x, self.plain.forward(self, x, identity=0))
    return stream + _add_from_stream(self, self.adder, stream, y)


def _before(host: nn.Module, x: Tensor) -> Tensor:
    for delta in host.deltas.values():
        x = delta.before(x)
    return x


def change_of_weights(host: nn.Module, delta: Delta) -> tuple[Tensor, Tensor | None]:
    """Return what an update adds to the weight and the bias of ``host``; the bias is None where both have none."""
    weight, bias = delta.update(host.weight, host.bias)
    return weight - host.weight, bias if host.bias is None else bias - host.bias


def _change_of_output(host: nn.Module, delta: Delta, x: Tensor) -> Tensor:
    """Return what an update of a linear layer or a LayerNorm adds to its output."""
    weight, bias = change_of_weights(host, delta)
    if isinstance(host, nn.LayerNorm):
        return F.layer_norm(x, host.normalized_shape, weight, bias, host.eps)
    return F.linear(x, weight, bias)


def _behind(host: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    for delta in host.deltas.values():
        if delta.reads == 'weights':
            y = y + _change_of_output(host, delta, x)
        elif delta.reads in ('input', 'output'):
            y = host.adder(host, delta, x if delta.reads == 'input' else y, y)
        y = delta.after(y)
    return y


def _add_from_stream(host: nn.Module, adder: Callable[..., Tensor], stream: Tensor, y: Tensor) -> Tensor:
    for delta in host.deltas.values():
        if delta.reads == 'stream':
            y = adder(host, delta, stream, y)
    return y


def add_delta(host: nn.Module, delta: Delta, x: Tensor, y: Tensor) -> Tensor:
    """Return the host's output ``y`` with what ``delta`` adds to it.

    Args:
        host: the module; its attribute ``adder`` is this function, or another that returns the same.
        delta: one of its deltas.
        x: what the delta reads.
        y: the output so far.
    """
    return addition.add(y, delta(x))


@cache
def branch_class(plain: type[nn.Module], method: str, host: str) -> type[nn.Module]:
    """Return the subclass of a block whose branch adds those deltas of ``host`` that read the residual stream.

    Args:
        plain: the block's class.
        method: the method of (B, ..., d) to (B, ..., d) that computes the branch, drop-path included.
        host: the attribute that holds the deltas' host, such as ``'mlp'``.
    """

    def branch(self: nn.Module, x: Tensor) -> Tensor:
        y, inner = getattr(plain, method)(self, x), getattr(self, host)
        return _add_from_stream(inner, add_delta, x, y) if 'deltas' in inner._modules else y

    recipe = (branch_class, plain, method, host)
    return exchanged(f'Branched{plain.__name__}', recipe, **{method: branch, 'branched': True})


def attach(host: nn.Module, name: str, delta: Delta) -> None:
    """Put ``delta`` on ``host`` as ``host.deltas.<name>``.

    Raises:
        UserError: when ``name`` is not an identifier, or is an attribute of nn.ModuleDict.
    """
    if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise UserError(f'{name!r} cannot name a delta: choose an identifier such as "patt" or "adapter".')
    if 'deltas' not in host._modules:
        reattach(host, nn.ModuleDict())
    host.deltas[name] = delta


def attach_branch(block: nn.Module, method: str, host: str) -> None:
    """Let ``block`` add the residual-stream deltas of its child ``host`` outside drop-path."""
    own = detach(block) if 'deltas' in block._modules else None
    if not getattr(block, 'branched', False):
        block.__class__ = branch_class(type(block), method, host)
    if own is not None:
        reattach(block, own)


def detach(host: nn.Module) -> nn.ModuleDict:
    """Give the host its own class back and return its deltas; the inverse of :func:`attach`."""
    deltas = host.deltas
    del host.deltas
    host.__class__ = type(host).recipe[1]
    return deltas


def reattach(host: nn.Module, deltas: nn.ModuleDict) -> None:
    """Put back what :func:`detach` took."""
    host.deltas = deltas
    host.__class__ = hosted_class(type(host))
