"""Additions written into the host's output in one matrix product.

Fewer passes over memory, on a CPU and on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..petl import Addition, Delta, addition
from ..petl.addition import Additions
from .watch import is_transformed, is_watched


def add_in_place(host: nn.Module, delta: Delta, additions: Additions, y: Tensor) -> Tensor:
    """:func:`vpetl_mm.petl.host.add_delta`, written into ``y`` where nothing else can see it.

    A linear layer, a scaling and a sum would pass four times over memory as large as ``y``. The plain sum is used
    where a hook sees what modules inside ``host`` return, under torch.compile and torch.func, and where
    a delta has read or returned ``y``, which its gradient may need.
    """
    needed = delta.reads == 'output' or any(type(d).after is not Delta.after for d in host.deltas.values())
    if needed or is_transformed() or any(map(is_watched, host.modules())):
        return addition.add(y, additions)
    for part in additions if isinstance(additions, (list, tuple)) else [additions]:
        one_each = isinstance(part, Addition) and part.h.shape[:-1] == y.shape[:-1] and y.is_contiguous()
        y = _written(y, part) if one_each else addition.add(y, part)
    return y


def _written(y: Tensor, part: Addition) -> Tensor:
    weight, bias, scale = part.weight, part.bias, part.scale
    if isinstance(scale, Tensor):  # it is trained, and autograd sees to it here
        rows = scale if scale.dim() == 0 else scale[:, None]  # one for each channel
        weight, bias, scale = weight * rows, None if bias is None else bias * scale, 1.0
    h, weight, bias = part.h.to(y.dtype), weight.to(y.dtype), None if bias is None else bias.to(y.dtype)
    return _AddProduct.apply(y, h, weight, bias, scale, part.start)


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
    """Return the columns of ``y`` that ``weight`` adds to, as a matrix that shares its memory."""
    return y.view(-1, y.shape[-1])[:, start : start + len(weight)]


def _rows(h: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``h`` as a matrix, with the bias's column of ones."""
    rows = h.reshape(-1, h.shape[-1])
    return rows if bias is None else F.pad(rows, (0, 1), value=1.0)
