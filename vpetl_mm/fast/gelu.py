"""GELU that keeps its derivative in 8 bits instead of its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .watch import is_transformed

# GELU's derivative lies between -0.12905 and 1.12905, at -sqrt 2 and sqrt 2
LOW, HIGH = -0.1291, 1.1291
STEP = (HIGH - LOW) / 255
CHUNK = 2**17  # elements processed together, so that a CPU's cache holds them


class GELU8Bit(nn.GELU):
    """nn.GELU whose backward pass has the derivative in 256 levels, a quarter of the memory in float32.

    The output is exact. The derivative is off by at most half a level, 0.0025.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU(x) of any tensor."""
        if not (x.requires_grad and torch.is_grad_enabled()) or is_transformed():
            return super().forward(x)
        return _GELU.apply(x.contiguous(), self.approximate)


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        levels = torch.empty_like(x, dtype=torch.uint8)
        y = torch.empty_like(x)
        per_step = torch.full((), 1 / STEP, device=x.device)
        for part, out, kept in _chunks(x, y, levels):
            torch.ops.aten.gelu.out(part, approximate=approximate, out=out)
            exact = part.float()  # bfloat16 is coarser than the levels
            slope = torch.ops.aten.gelu_backward(per_step.expand_as(exact), exact, approximate=approximate)
            kept.copy_(slope.add_(0.5 - LOW / STEP))  # which truncates
        ctx.save_for_backward(levels)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # also where ``grad`` is constant, which once_differentiable would not see
            raise RuntimeError("petl.gelu='8bit' has no second derivatives (create_graph=True): use 'exact'.")
        (levels,), grad = ctx.saved_tensors, grad.contiguous()
        result = torch.empty_like(grad)
        for part, kept, out in _chunks(grad, levels, result):
            torch.mul(part, kept.float().mul_(STEP).add_(LOW), out=out)
        return result, None


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same pieces of tensors of one layout; whole ones on a GPU, where a launch costs more than memory."""
    flat = [t.view(-1) for t in tensors]
    size = CHUNK if flat[0].device.type == 'cpu' else max(flat[0].numel(), 1)
    return zip(*(t.split(size) for t in flat), strict=True)
