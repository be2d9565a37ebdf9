"""Sparse tuning that corrects the layer's output instead of summing weights.

On a CPU and on a GPU the gradient of a whole weight, one more product of its size, is never computed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..petl import Sparse
from ..petl.inner import Projection
from ..petl.opened import is_opened


class GatheredSparse(Sparse):
    """S x costs one gather, one product and one scatter of (n, tokens) numbers; S is never built.

    The backward pass keeps x alone, in the format of the layer's output. On a LayerNorm S norm(x) is added.
    """

    reads = 'input'

    @classmethod
    def take_over(cls, delta: Sparse, host: nn.Module) -> None:
        """Exchange the class of ``delta``.

        Args:
            delta: sits on ``host``.
            host: a linear layer, a LayerNorm, or an attention whose q, k and v are three layers, seen as one.
        """
        delta.__class__ = cls
        layer = Projection(host, host.inner) if is_opened(host) else host
        delta.weight_shape, delta.eps = tuple(layer.weight.shape), getattr(layer, 'eps', 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction of the host's output.

        Args:
            x: the host's input, (..., d_in).

        Returns:
            (..., d_out).
        """
        device = x.device.type
        norm = len(self.weight_shape) == 1
        if not norm and torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        y = x.new_zeros(self.weight_shape[0])
        if self.bias_value is not None:
            y = y.index_add(0, self.bias_index, self.bias_value.to(y.dtype))
        if self.weight_value is None:
            return y
        if norm:
            normed = F.layer_norm(x, self.weight_shape, eps=self.eps).index_select(-1, self.weight_index)
            y = y.expand(*x.shape[:-1], -1)
            return y.index_add(-1, self.weight_index, (normed * self.weight_value).to(y.dtype))
        value = _summable(self.weight_value)
        rows = torch.div(self.weight_index, self.weight_shape[1], rounding_mode='floor')
        columns = self.weight_index - rows * self.weight_shape[1]
        product = _SparseProduct.apply(x, value, rows, columns, self.weight_shape[0])
        return product if self.bias_value is None else product + y


class _SparseProduct(torch.autograd.Function):
    """S x; keeps x, and gathers from it again for the gradient of the values.

    Inside, tokens lie along the last dimension: gathering and scattering then move whole rows, which on the CPU in
    float32 takes a little over half the time of picking columns (docs/performance.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, rows: Tensor, columns: Tensor, width: int) -> Tensor:
        ctx.save_for_backward(x, value, rows, columns)
        products = _summable(_columns_first(x).index_select(0, columns)) * value[:, None]
        added = products.new_zeros(width, products.shape[1]).index_add_(0, rows, products)
        return added.t().view(*x.shape[:-1], width).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, value, rows, columns = ctx.saved_tensors
        of_rows = _summable(_columns_first(grad).index_select(0, rows))
        inputs = _columns_first(x)
        to_value = (inputs.index_select(0, columns) * of_rows).sum(1)
        if not ctx.needs_input_grad[0]:
            return None, to_value, None, None, None
        # of_rows is written over, unless someone wants the gradient of the gradient
        scaled = torch.mul(of_rows, value[:, None], out=None if torch.is_grad_enabled() else of_rows)
        to_x = of_rows.new_zeros(inputs.shape).index_add_(0, columns, scaled)
        return to_x.t().view(x.shape).to(x.dtype), to_value, None, None, None


def _summable(x: Tensor) -> Tensor:
    """Return ``x`` in at least float32: a row may sum hundreds of entries, and half precision rounds at each step."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _columns_first(x: Tensor) -> Tensor:
    """Copy (..., d) to (d, tokens)."""
    return x.reshape(-1, x.shape[-1]).t().contiguous()
