"""Count the bytes of tensors alive while something runs, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A counter of the memory of tensors created inside, each storage once, from creation until it is freed.

    A kernel's own workspace is not seen.

    Attributes:
        now: bytes alive.
        peak: the most bytes alive so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operation and count what it returns, unless it was there before."""
        self._known.update(t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage.nbytes()).atexit = False

    def _gone(self, size: int) -> None:
        self.now -= size


def loss_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the cross-entropy of class 0 for clips or images, (B, 3, T, H, W) or (B, 3, H, W), as in training."""
    logits = getattr(model, model.head_name)(model.backbone(inputs)).float()
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def alive_after_forward(model: nn.Module, inputs: Tensor, mixed: bool = False) -> int:
    """Count the bytes that a training forward pass keeps for the backward pass, parameters and buffers left out.

    Args:
        model: a PETL model.
        inputs: (B, 3, T, H, W) or (B, 3, H, W).
        mixed: run under bfloat16 autocast.
    """
    model.train()
    live = LiveBytes()
    with live, torch.autocast(inputs.device.type, torch.bfloat16, mixed):
        loss = loss_of(model, inputs)  # noqa: F841, holds what is counted
        return live.now


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits of clips (B, 3, T, H, W) or images (B, 3, H, W) in evaluation mode."""
    model.eval()
    return getattr(model, model.head_name)(model.backbone(inputs))


class Footprint(NamedTuple):
    """A model's memory in bytes, without drop-path.

    Args:
        saved: what a training step's forward pass keeps for the backward pass.
        held: what modules keep between steps, whatever the batch (position biases).
        peak: the most alive in a training step, parameters, gradients and ``held`` included.
        infer_peak: the most alive in inference, parameters and ``held`` included.
    """

    saved: int
    held: int
    peak: int
    infer_peak: int


def footprint_of(model: nn.Module, inputs: Tensor) -> Footprint:
    """Measure a model's memory.

    Args:
        model: a PETL model; its gradients are cleared.
        inputs: (B, 3, T, H, W) or (B, 3, H, W), on the model's device.
    """
    rates = {m: m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')}
    for module in rates:
        module.drop_prob = 0.0
    alive_after_forward(model, inputs)  # creates what is created once
    model.zero_grad(set_to_none=True)
    saved, held = alive_after_forward(model, inputs), _held(model)
    peak = _peak(model, lambda: loss_of(model, inputs).backward())
    for module, rate in rates.items():
        module.drop_prob = rate
    model.zero_grad(set_to_none=True)
    return Footprint(saved, held, peak, _peak(model, lambda: logits_of(model, inputs)))


def _held(model: nn.Module) -> int:
    return sum(getattr(m, 'kept_bytes', 0) for m in model.modules())


def _peak(model: nn.Module, work: Callable[[], Any]) -> int:
    """Return the most bytes alive when ``work`` runs a second time, parameters and what is held included."""
    work()
    model.zero_grad(set_to_none=True)
    live = LiveBytes()
    with live:
        work()
    return live.peak + _held(model) + sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
