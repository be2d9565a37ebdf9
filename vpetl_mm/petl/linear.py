"""A linear layer whose float32 products on a CPU are oneDNN's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# what torch.compile makes of a frozen linear layer on a CPU; a build without oneDNN has none
_PRODUCT = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
FUSED = {nn.GELU: 'gelu', nn.Tanh: 'tanh'}  # activation -> oneDNN's name; its ReLU would make 0 of nan


class FastLinear(nn.Linear):
    """nn.Linear that takes the faster of torch's two CPU libraries while its weights are frozen.

    In float32 F.linear goes to MKL, which on an AMD CPU takes a seventh longer than oneDNN (docs/performance.md).
    Everywhere else, under autocast, and for weights that train, it is F.linear.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (..., d_in) to (..., d_out)."""
        if not self.is_faster(x):
            return super().forward(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Linear.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)

    def is_faster(self, x: Tensor) -> bool:
        """Whether oneDNN takes ``x``."""
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        return (
            _PRODUCT is not None
            and torch.backends.mkldnn.enabled
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled('cpu')
            and all(t.device.type == 'cpu' and t.dtype == torch.float32 for t in (x, *parameters))
            and not (torch.is_grad_enabled() and any(p.requires_grad for p in parameters))
            and x.dim() > 1
            and x.numel() > 0
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
        or any((m._forward_hooks or m._forward_pre_hooks) for m in (linear, act))
        or (torch.is_grad_enabled() and x.requires_grad)
        or not linear.is_faster(x)
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
    y = _PRODUCT(x.reshape(-1, x.shape[-1]), weight, bias, act, [], algorithm)
    return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))  # a delta could not write into a plain view
