"""How many bytes of tensors are alive while something runs, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the memory of tensors made inside, each storage once, from its making to its end.

    What a kernel needs inside itself is not seen.

    Attributes:
        now: bytes alive.
        peak: the most there were.
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
    """A cross-entropy of the class 0 for clips or images, (B, 3, T, H, W) or (B, 3, H, W), as in training."""
    logits = getattr(model, model.head_name)(model.backbone(inputs)).float()
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def alive_after_forward(model: nn.Module, inputs: Tensor, mixed: bool = False) -> int:
    """The bytes that a forward pass in training leaves for the backward pass, parameters and buffers left out.

    Args:
        model: a PETL model.
        inputs: (B, 3, T, H, W) or (B, 3, H, W).
        mixed: run under bfloat16 autocast.
    """
    model.train()
    live = LiveBytes()
    with live, torch.autocast(inputs.device.type, torch.bfloat16, mixed):
        loss = loss_of(model, inputs)  # noqa: F841, it holds what is counted
        return live.now


def memory_of(model: nn.Module, inputs: Tensor) -> tuple[int, int, int]:
    """What a training step without drop-path needs.

    Args:
        model: an experiment's; its gradients are cleared.
        inputs: (B, 3, ...), on its device.

    Returns:
        Bytes left for the backward pass, bytes that modules keep from step to step, and the most alive in a step,
        parameters and what is kept included.
    """
    rates = {m: m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')}
    for module in rates:
        module.drop_prob = 0.0
    alive_after_forward(model, inputs)  # what is made once is there then
    model.zero_grad(set_to_none=True)
    saved, held = alive_after_forward(model, inputs), _held(model)
    peak = peak_of(model, lambda m: loss_of(m, inputs).backward())
    for module, rate in rates.items():
        module.drop_prob = rate
    model.zero_grad(set_to_none=True)
    return saved, held, peak


def _held(model: nn.Module) -> int:
    return sum(getattr(m, 'kept_bytes', 0) for m in model.modules())


def peak_of(model: nn.Module, work: Callable[[nn.Module], Any]) -> int:
    """The most bytes alive while ``work`` is done a second time, parameters and what is kept included.

    Args:
        model: an experiment's; its gradients are cleared in between.
        work: a training step or an inference of it.
    """
    work(model)
    model.zero_grad(set_to_none=True)
    own = [*model.parameters(), *model.buffers()]
    live = LiveBytes()
    with live:
        work(model)
    return live.peak + _held(model) + sum(t.nbytes for t in own)
