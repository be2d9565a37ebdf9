"""How a delta sits on a module of someone else's model without changing its weights or its keys.

The host is given, in place, a cached subclass of its own class whose forward adds the deltas, which live in
``host.deltas``. Weights stay the host's, so a plain checkpoint still fits; deltas stack; deepcopy, pickle
and torch.compile work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta
from .transforms import is_transformed, is_watched


class Hosted:
    """Marks a module whose class was exchanged; knows how to be pickled all the same."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _blank, (_recipe(type(self)),), self.__getstate__()


def _recipe(cls: type) -> Any:
    """A class that was made here as what makes it, down to a class that can be imported."""
    if not issubclass(cls, Hosted):
        return cls
    make, plain, *names = cls.recipe
    return make, _recipe(plain), *names


def _made(recipe: Any) -> type:
    if isinstance(recipe, type):
        return recipe
    make, plain, *names = recipe
    return make(_made(plain), *names)


def _blank(recipe: Any) -> nn.Module:
    hosted = _made(recipe)
    return hosted.__new__(hosted)


def _bases(plain: type) -> tuple[type, ...]:
    return (plain,) if issubclass(plain, Hosted) else (Hosted, plain)


@cache
def hosted_class(plain: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``plain`` that adds ``self.deltas`` to its output."""
    forward = _forward_with_identity if _takes_identity(plain) else _forward
    members = {'forward': forward, 'plain': plain, 'recipe': (hosted_class, plain)}
    return type(f'Hosted{plain.__name__}', _bases(plain), members)


def _forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    for delta in self.deltas.values():
        x = delta.before(x)
    y = self.plain.forward(self, x, *args, **kwargs)
    return _add(self.deltas, 'host', x, y, _is_unseen(self))


def _takes_identity(plain: type[nn.Module]) -> bool:
    """Whether it is an MLP, such as mmcv's FFN, that may add the residual stream in its own forward."""
    return 'identity' in inspect.signature(plain.forward).parameters


def _forward_with_identity(self: nn.Module, x: Tensor, identity: Tensor | None = None) -> Tensor:
    """The branch alone, the deltas on it, then the residual stream, which is where some deltas read."""
    if not self.add_identity:
        return _add(self.deltas, 'host', x, self.plain.forward(self, x), _is_unseen(self))
    stream, unseen = x if identity is None else identity, _is_unseen(self)
    y = _add(self.deltas, 'host', x, self.plain.forward(self, x, identity=0), unseen)
    return stream + _add(self.deltas, 'residual', stream, y, unseen)


def _is_unseen(host: nn.Module) -> bool:
    """Whether no hook sees what the modules inside ``host`` pass on; what is transformed is never written over."""
    return is_transformed() or not any(map(is_watched, host.modules()))


def _add(deltas: Mapping[str, Delta], stream: str, x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """Apply, one after the other, the deltas that read ``stream``, which is ``x``, to ``y``.

    ``inplace`` says that ``y`` is nobody else's. What a delta without that option returns, its own gradient may need.
    """
    for delta in deltas.values():
        if delta.stream == stream:
            inplace = inplace and delta.has_inplace
            y = delta(x, y, inplace=inplace) if delta.has_inplace else delta(x, y)
    return y


@cache
def branch_class(plain: type[nn.Module], method: str, host: str) -> type[nn.Module]:
    """The subclass of a block whose ``method`` (a residual branch) adds the residual-stream deltas of ``host``.

    Args:
        plain: the block's class.
        method: the method of (B, ..., d) to (B, ..., d) that computes the branch, drop-path included.
        host: the attribute that holds the deltas' host, such as ``'mlp'``.
    """

    def branch(self: nn.Module, x: Tensor) -> Tensor:
        deltas = getattr(getattr(self, host), 'deltas', {})
        return _add(deltas, 'residual', x, getattr(plain, method)(self, x), inplace=False)  # hooks on the host see it

    members = {method: branch, 'branched': True, 'recipe': (branch_class, plain, method, host)}
    return type(f'Branched{plain.__name__}', _bases(plain), members)


def attach(host: nn.Module, name: str, delta: Delta) -> None:
    """Put ``delta`` on ``host`` as ``host.deltas.<name>``.

    Raises:
        UserError: when ``name`` is no identifier, or one that nn.ModuleDict keeps for itself.
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
