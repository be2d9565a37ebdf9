"""Sparse: single entries of a frozen weight, trained as (index, value) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta


class Sparse(Delta):
    """Unstructured tuning (SPT, Sec. 1): y with W + S in the place of W, S zero but at the given entries.

    The layer's output is corrected, S is never made: S x costs one gather, one product and one scatter of
    (n, tokens) numbers, and what is kept for the gradients is x, in the format of y. Values start at zero, so that
    step 0 is the plain backbone. Parameters: one for each index.

    On a LayerNorm the weight is a vector: y + S norm(x). Entries of a bias are added to the output.

    Args:
        weight_shape: of the host's weight, (d_out, d_in), or (d,) of a LayerNorm's.
        weight_index: flat positions in the weight, (n,), whole numbers; None for none.
        bias_index: positions in the host's output whose bias is tuned, (m,); None for none.
        eps: the LayerNorm's.
    """

    places = ('qkv', 'proj', 'fc1', 'fc2')

    def __init__(
        self,
        weight_shape: Sequence[int],
        weight_index: Tensor | None = None,
        bias_index: Tensor | None = None,
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight_shape, self.eps = tuple(weight_shape), eps
        for name, given in (('weight', weight_index), ('bias', bias_index)):
            # on the device of everything else that is built, which may be meta
            index = None if given is None else given.to(torch.get_default_device(), torch.int32)
            self.register_buffer(f'{name}_index', index)
            self.register_parameter(f'{name}_value', None if index is None else nn.Parameter(torch.zeros(len(index))))

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuse to be named in ``petl.deltas``: which entries it trains stands in the file of ``petl.spt``."""
        raise UserError('Sparse has no place in petl.deltas: petl.spt=dict(file=...) says which entries it trains.')

    def reset_parameters(self) -> None:
        """Set every value to zero."""
        for value in self.parameters():
            nn.init.zeros_(value)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Correct the host's output.

        Args:
            x: the host's input, (..., d_in).
            y: the host's output, (..., d_out).

        Returns:
            A tensor of the shape of ``y``.
        """
        if self.weight_value is not None:
            y = self._add_weight(x.to(y.dtype), y)
        if self.bias_value is not None:
            bias = torch.zeros(y.shape[-1], dtype=y.dtype, device=y.device)
            y = y + bias.index_add(0, self.bias_index, self.bias_value.to(y.dtype))
        return y

    def _add_weight(self, x: Tensor, y: Tensor) -> Tensor:
        if len(self.weight_shape) == 1:
            normed = F.layer_norm(x, self.weight_shape, eps=self.eps).index_select(-1, self.weight_index)
            return y.index_add(-1, self.weight_index, (normed * self.weight_value).to(y.dtype))
        value = _summable(self.weight_value)
        rows = torch.div(self.weight_index, self.weight_shape[1], rounding_mode='floor')
        return _AddSparse.apply(x, y, value, rows, self.weight_index - rows * self.weight_shape[1])

    @torch.no_grad()
    def merge(self, host: nn.Module, biases: Sequence[tuple[nn.Parameter, int]]) -> None:
        """Add the values to the weights for good.

        Args:
            host: the module that it sits on.
            biases: the parameters that make up the bias of the host's output, each with the position it begins at.
        """
        if self.weight_value is not None:
            host.weight.view(-1).index_add_(0, self.weight_index, self.weight_value.to(host.weight.dtype))
        for bias, start in biases if self.bias_value is not None else ():
            inside = (self.bias_index >= start) & (self.bias_index < start + len(bias))
            bias.index_add_(0, self.bias_index[inside] - start, self.bias_value[inside].to(bias.dtype))


class _AddSparse(torch.autograd.Function):
    """y + S x; keeps x, and gathers from it again for the gradient of the values.

    Tokens lie along the last dimension meanwhile: gathering and scattering then move whole rows, which on the CPU in
    float32 takes a little over half the time of picking columns (docs/performance.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(x, value, rows, columns)
        products = _summable(_columns_first(x).index_select(0, columns)) * value[:, None]
        added = products.new_zeros(y.shape[-1], products.shape[1]).index_add_(0, rows, products)
        return y + added.t().view(y.shape).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, value, rows, columns = ctx.saved_tensors
        of_rows = _summable(_columns_first(grad).index_select(0, rows))
        inputs = _columns_first(x)
        to_value = (inputs.index_select(0, columns) * of_rows).sum(1)
        if not ctx.needs_input_grad[0]:
            return None, grad, to_value, None, None
        # of_rows is written over, unless someone wants the gradient of the gradient
        scaled = torch.mul(of_rows, value[:, None], out=None if torch.is_grad_enabled() else of_rows)
        to_x = of_rows.new_zeros(inputs.shape).index_add_(0, columns, scaled)
        return to_x.t().view(x.shape).to(x.dtype), grad, to_value, None, None


def _summable(x: Tensor) -> Tensor:
    """At least in float32: a row may hold hundreds of entries, whose sum half precision would round at each step."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _columns_first(x: Tensor) -> Tensor:
    """(..., d) as (d, tokens), in memory of its own."""
    return x.reshape(-1, x.shape[-1]).t().contiguous()
