"""A linear layer whose float32 products on a CPU are oneDNN's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .transforms import is_transformed, is_watched

# without autograd, and without a public name; a build without oneDNN has none
PRODUCT = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
FUSED = {nn.GELU: 'gelu', nn.Tanh: 'tanh'}  # activation -> oneDNN's name; its ReLU would make 0 of nan
WORTH_FROM = 2**25  # multiplications; oneDNN takes some 50 us a call more than MKL


class FastLinear(nn.Linear):
    """nn.Linear that takes oneDNN in place of MKL where no gradient of its weights is asked for.

    F.linear goes to MKL in float32 on a CPU, which on an AMD one takes a seventh longer (docs/performance.md). For
    small products, everywhere else, under autocast, and in what is compiled, traced or transformed, this is F.linear.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (..., d_in) to (..., d_out)."""
        if not self.takes_onednn(x):
            return super().forward(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Linear.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)

    def takes_onednn(self, x: Tensor) -> bool:
        """Whether oneDNN multiplies ``x``, (..., d_in); where it does not, F.linear does, and says what is wrong."""
        if is_transformed() or x.numel() * self.out_features < WORTH_FROM:
            return False
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        return (
            all(t.is_cpu and t.dtype == torch.float32 for t in (x, *parameters))
            and all(p.is_contiguous() for p in parameters)  # it passes over the strides of a bias
            and not (torch.is_grad_enabled() and any(p.requires_grad for p in parameters))
            and x.dim() > 1
            and x.shape[-1] == self.in_features
            and PRODUCT is not None
            and torch.backends.mkldnn.enabled
            and not torch.is_autocast_enabled('cpu')
        )


def activated(linear: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """act(linear(x)), (..., d_in) to (..., d_out).

    One call, where no gradient, delta or hook asks for what lies between, which then takes no memory.

    Args:
        linear: a layer, which may be a host of deltas.
        act: the activation behind it; one that is something else in training names its class in inference as
            ``in_inference``.
        x: the layer's input.
    """
    fused = FUSED.get(getattr(act, 'in_inference', type(act)))
    apart = (
        fused is None
        or getattr(act, 'approximate', 'none') != 'none'
        or type(linear) is not FastLinear
        or is_watched(linear)
        or is_watched(act)
        or (torch.is_grad_enabled() and x.requires_grad)
        or not linear.takes_onednn(x)
    )
    return act(linear(x)) if apart else _product(x, linear.weight, linear.bias, fused)


class _Linear(torch.autograd.Function):
    """A frozen layer: the gradient of its input is one more such product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # of which someone wants the gradient in turn
            return grad @ weight, None, None
        return _product(grad, weight.t(), None), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, act: str = 'none') -> Tensor:
    algorithm = 'none' if act == 'gelu' else ''  # by erf
    y = PRODUCT(x.reshape(-1, x.shape[-1]), weight, bias, act, [], algorithm)
    return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))  # a delta could not write into a plain view
