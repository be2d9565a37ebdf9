"""How a delta sits on a module of someone else's model without changing its weights or its keys.

The host is given, in place, a cached subclass of its own class whose forward adds the deltas, which live in
``host.deltas``. Weights stay the host's, so a plain checkpoint still fits; deltas stack; deepcopy, pickle
and torch.compile work.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta


class Hosted:
    """Marks a module whose class was exchanged; knows how to be pickled all the same."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _blank, type(self).recipe, self.__dict__.copy()


def _blank(make: Any, plain: type, *names: str) -> nn.Module:
    hosted = make(plain, *names)
    return hosted.__new__(hosted)


@cache
def hosted_class(plain: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``plain`` that adds ``self.deltas`` to its output."""

    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = plain.forward(self, x, *args, **kwargs)
        for delta in self.deltas.values():
            if delta.stream == 'host':
                y = delta(x, y)
        return y

    return type(f'Hosted{plain.__name__}', (Hosted, plain), {'forward': forward, 'recipe': (hosted_class, plain)})


@cache
def branch_class(plain: type[nn.Module], method: str, host: str) -> type[nn.Module]:
    """The subclass of a block whose ``method`` (a residual branch) adds the residual-stream deltas of ``host``.

    Args:
        plain: the block's class.
        method: the method of (B, ..., d) to (B, ..., d) that computes the branch, drop-path included.
        host: the attribute that holds the deltas' host, such as ``'mlp'``.
    """

    def branch(self: nn.Module, x: Tensor) -> Tensor:
        y = getattr(plain, method)(self, x)
        for delta in getattr(self, host).deltas.values():
            if delta.stream == 'residual':
                y = delta(x, y)
        return y

    members = {method: branch, 'recipe': (branch_class, plain, method, host)}
    return type(f'Branched{plain.__name__}', (Hosted, plain), members)


def attach(host: nn.Module, name: str, delta: Delta) -> None:
    """Put ``delta`` on ``host`` as ``host.deltas.<name>``.

    Raises:
        UserError: when ``name`` is no identifier, or one that nn.ModuleDict keeps for itself.
    """
    if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise UserError(f'{name!r} cannot name a delta: choose an identifier such as "patt" or "adapter".')
    if not isinstance(host, Hosted):
        host.deltas = nn.ModuleDict()
        host.__class__ = hosted_class(type(host))
    host.deltas[name] = delta


def attach_branch(block: nn.Module, method: str, host: str) -> None:
    """Let ``block`` add the residual-stream deltas of its child ``host`` outside drop-path."""
    if not isinstance(block, Hosted):
        block.__class__ = branch_class(type(block), method, host)


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
