"""Cheap tensors are computed again in the backward pass instead of being kept for it.

Less memory on a CPU and on a GPU; the time is the same on a CPU, where what is not kept need not be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..petl import layout_of
from ..petl.exchange import exchanged
from .watch import is_transformed

_active: ContextVar[dict[str, _Made] | None] = ContextVar('made', default=None)


class _Made(NamedTuple):
    """A tensor as it was when it was noted, and the function that computes it."""

    tensor: Tensor
    version: int
    make: Callable[[], Tensor]


class _Again(NamedTuple):
    """Stands for a saved tensor: the function that computes it, and the part of it that was saved."""

    make: Callable[[], Tensor]
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


def note(kind: str, made: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """Return ``made``, for the backward pass to compute again; outside :func:`recomputing` nothing is noted.

    Args:
        kind: its kind; only the last tensor of each kind is known, and it is held until the next one.
        made: the tensor; its views count too.
        make: computes an equal tensor in the same memory layout.
    """
    known = _active.get()
    if known is not None:
        known[kind] = _Made(made, made._version, make)
    return made


@contextmanager
def recomputing(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let autograd keep neither the outputs of ``norms`` nor what is noted, but functions that compute them.

    A norm's output follows exactly from its input, which autograd keeps anyway. Under autocast it is cast once, here,
    instead of in every layer that reads it.
    """
    known: dict[str, _Made] = {}

    def pack(tensor: Tensor) -> Any:
        for made, version, make in known.values():
            if made.untyped_storage() is tensor.untyped_storage() and tensor._version == version:
                return _Again(make, tensor.size(), tensor.stride(), tensor.storage_offset())
        return tensor.detach(), tensor._version  # not itself: it would hold the graph that holds it

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, _Again):
            return kept.make().as_strided(*kept[1:])
        return _unchanged(*kept)

    with ExitStack() as stack:
        for norm in (n for n in norms if not n._forward_hooks and not n._forward_pre_hooks):  # which may change it
            handle = norm.register_forward_hook(_note_norm)
            stack.callback(handle.remove)
        token = _active.set(known)
        stack.callback(_active.reset, token)
        stack.callback(known.clear)  # the hook, which autograd keeps, would hold the graph that holds it
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, unpack))
        yield


@cache
def recomputing_class(plain: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of a backbone's class whose forward pass in training is :func:`recomputing`."""
    return exchanged(plain.__name__, (recomputing_class, plain), forward=_forward)


def _forward(self: nn.Module, plain: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    if is_transformed() or not torch.is_grad_enabled():
        return plain.forward(self, *args, **kwargs)
    # inside a checkpointed module everything is computed again anyway, without what is noted here
    apart = [m for m in self.modules() if m is not self and (vars(m).get('with_cp') or 'forward' in vars(m))]
    inside = {id(m) for parent in apart for m in parent.modules()}
    inside |= {id(m) for m in self.modules() if 'noted' in vars(m)}  # a norm that a delta reads keeps its own
    with recomputing(n for n in layout_of(self).norms(self) if id(n) not in inside):
        return plain.forward(self, *args, **kwargs)


def is_noted(module: nn.Module) -> bool:
    """Tell whether :func:`recomputing` alone watches ``module``."""
    return [*module._forward_hooks.values()] == [_note_norm] and not module._backward_hooks


def _unchanged(tensor: Tensor, version: int) -> Tensor:
    """Return ``tensor`` if it has not been modified; PyTorch does not check that where there are hooks."""
    if tensor._version != version:
        raise RuntimeError(
            f'A tensor of shape {tuple(tensor.shape)}, needed for gradients, was modified in place after the forward '
            'pass.'
        )
    return tensor


def _note_norm(norm: nn.Module, args: tuple[Tensor], y: Tensor) -> Tensor:
    (x,) = args
    device = x.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    needed = [(t, t._version) for t in (x.detach(), *norm.parameters())]

    def make() -> Tensor:
        x, *_ = (_unchanged(*pair) for pair in needed)
        with torch.autocast(device, dtype=cast, enabled=cast is not None):
            y = norm.forward(x)
        return y if cast is None else y.to(cast)

    return note('norm', y if cast is None else y.to(cast), make)
