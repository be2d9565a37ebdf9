"""The last step of a bottleneck, added to its host's output in one matrix product."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transforms import is_transformed


def add_up(
    y: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, scale: float | Tensor, start: int = 0
) -> Tensor:
    """y + s (h W^T + b) on the columns from ``start`` on, written into the memory of ``y``.

    As a linear layer, a scaling and slots put together it would pass four times over something as large as ``y``.

    Args:
        y: the host's output, (..., d_out); it is overwritten, so that nobody else may need it.
        h: the bottleneck, (..., r), of the same leading shape.
        weight: W, (n, r), n at most d_out - start.
        bias: b, (n,), or None.
        scale: the strength s, a number or a trained scalar.
        start: the first column that is added to.

    Returns:
        (..., d_out).
    """
    if isinstance(scale, Tensor):  # it is trained, and autograd sees to it here
        weight, bias, scale = weight * scale, None if bias is None else bias * scale, 1.0
    h, weight, bias = h.to(y.dtype), weight.to(y.dtype), None if bias is None else bias.to(y.dtype)
    if is_transformed() or not y.is_contiguous():
        return y + F.pad(F.linear(h, weight, bias) * scale, (start, y.shape[-1] - start - len(weight)))
    return _AddProduct.apply(y, h, weight, bias, scale, start)


def add_up_to_slots(y: Tensor, h: Tensor, up: nn.Linear, scale: float | Tensor, slots: str) -> Tensor:
    """:func:`add_up` on chosen slots of a fused qkv: ``up`` gives (..., len(slots) * d), ``y`` is (..., 3 d)."""
    width = len(up.weight) // len(slots)
    if slots in 'qkv':  # side by side
        return add_up(y, h, up.weight, up.bias, scale, 'qkv'.index(slots) * width)
    biases = [None] * len(slots) if up.bias is None else up.bias.chunk(len(slots))
    for slot, weight, bias in zip(slots, up.weight.chunk(len(slots)), biases, strict=True):
        y = add_up(y, h, weight, bias, scale, 'qkv'.index(slot) * width)
    return y


class _AddProduct(torch.autograd.Function):
    """y[..., start:start + n] += s (h W^T + b); the bias is one more column of W, for an input that is always 1."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, scale: float, start: int
    ) -> Tensor:
        whole = weight if bias is None else torch.cat([weight, bias.unsqueeze(1)], dim=1)
        _columns(y, start, weight).addmm_(_rows(h, bias), whole.t(), alpha=scale)
        ctx.save_for_backward(h, weight, bias)
        ctx.scale, ctx.start = scale, start
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias = ctx.saved_tensors
        part = _columns(grad.contiguous(), ctx.start, weight)
        grad_h = (part @ weight).mul_(ctx.scale).view_as(h) if ctx.needs_input_grad[1] else None
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_weight = (part.t() @ _rows(h, bias)).mul_(ctx.scale)
            if bias is not None:
                grad_weight, grad_bias = grad_weight[:, :-1], grad_weight[:, -1]
        return grad, grad_h, grad_weight, grad_bias, None, None


def _columns(y: Tensor, start: int, weight: Tensor) -> Tensor:
    """The columns of ``y`` that ``weight`` adds to, as a matrix that shares its memory."""
    return y.view(-1, y.shape[-1])[:, start : start + len(weight)]


def _rows(h: Tensor, bias: Tensor | None) -> Tensor:
    """``h`` as a matrix, with the bias's column of ones."""
    rows = h.reshape(-1, h.shape[-1])
    return rows if bias is None else F.pad(rows, (0, 1), value=1.0)
