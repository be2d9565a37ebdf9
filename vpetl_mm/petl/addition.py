"""Additions: terms of a host's output that come from deltas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Addition:
    """s (h W^T + b), added to neighbouring columns of a host's output.

    Args:
        h: the bottleneck, (..., r).
        weight: W, (n, r).
        bias: b, (n,). Defaults to None.
        scale: s, a number or a trained scalar. Defaults to 1.
        start: the first of the n columns. Defaults to 0.
    """

    h: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float | Tensor = 1.0
    start: int = 0

    def value(self) -> Tensor:
        """Return s (h W^T + b), (..., n)."""
        return F.linear(self.h, self.weight, self.bias) * self.scale


# a tensor has the shape of the host's output, or one that broadcasts to it
Additions = Addition | Tensor | Sequence[Addition]


def for_slots(h: Tensor, up: nn.Linear, scale: float | Tensor, slots: str, host_slots: str = 'qkv') -> list[Addition]:
    """Return the additions to chosen slots of a fused projection.

    Args:
        h: the bottleneck, (..., r).
        up: from r to len(slots) * d, the slots side by side.
        scale: s.
        slots: the letters of the slots, in the host's order.
        host_slots: the letters of all slots of the host's output, each of width d.
    """
    width = up.out_features // len(slots)
    if slots in host_slots:  # neighbours
        return [Addition(h, up.weight, up.bias, scale, host_slots.index(slots) * width)]
    biases = [None] * len(slots) if up.bias is None else up.bias.chunk(len(slots))
    parts = zip(slots, up.weight.chunk(len(slots)), biases, strict=True)
    return [Addition(h, weight, bias, scale, host_slots.index(slot) * width) for slot, weight, bias in parts]


def add(y: Tensor, additions: Additions) -> Tensor:
    """Return ``y``, (..., d_out), with everything added."""
    for addition in additions if isinstance(additions, (list, tuple)) else [additions]:
        if isinstance(addition, Addition):
            value, start = addition.value(), addition.start
            assert start + value.shape[-1] <= y.shape[-1], 'an addition is wider than what it is added to'
            y = y + F.pad(value, (start, y.shape[-1] - start - value.shape[-1]))
        else:
            y = y + addition
    return y
