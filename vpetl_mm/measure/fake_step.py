"""One training step on fake tensors (shapes and types, no values): what autograd keeps and the FLOPs, without a GPU.

Attention counts as a fused kernel: it keeps q, k, v, the mask, its output and one number per row, and computes q k^T
again in the backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmaction.models.backbones.swin import compute_mask
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, mm_flop

from .live_bytes import LiveBytes, loss_of

aten = torch.ops.aten
FORMULAS = {**flop_registry, aten.addmm_: lambda y, a, b, out_shape=None, **_: mm_flop(a.shape, b.shape)}


class FakeStep(NamedTuple):
    """What one training step takes.

    Args:
        saved: bytes that the forward pass keeps for the backward pass, parameters and buffers left out.
        forward: FLOPs of the forward pass.
        step: FLOPs of the forward and the backward pass.
    """

    saved: int
    forward: int
    step: int


class _Flops(TorchDispatchMode):
    """A counter of the FLOPs of matrix products and convolutions, by torch's formulas.

    What runs on the meta device is not counted: a wrapped backbone tries there whether it takes its inputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None and args[0].device.type != 'meta':
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _FusedAttention(torch.autograd.Function):
    """A stand-in that saves and counts what a fused attention kernel does; its values have no meaning."""

    @staticmethod
    def forward(ctx: Any, counter: _Flops, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        y = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        row_sums = torch.empty(q.shape[:-1], device=q.device)
        ctx.save_for_backward(q, k, v, mask, y, row_sums)
        ctx.counter = counter
        counter.total += (_product(q, k) + _product(y, k)) * (q.device.type != 'meta')
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, y, _ = ctx.saved_tensors
        # q k^T again; then the gradients of the weights, of v, of q and of k
        ctx.counter.total += 3 * _product(q, k) + 2 * _product(y, k)
        tensors = zip(ctx.needs_input_grad[1:], (q, k, v, mask), strict=True)
        return None, *(torch.empty_like(t) if needed else None for needed, t in tensors)


def _product(rows: Tensor, keys: Tensor) -> int:
    """Return the FLOPs of a product of (..., n, d) and (..., m, d) over d."""
    return 2 * rows.numel() * keys.shape[-2]


class _AttentionIsFused(TorchFunctionMode):
    """A mode that replaces attention by the fused kernel that a GPU would run."""

    def __init__(self, counter: _Flops) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = args[:3]
        mask = kwargs.get('attn_mask')
        if torch.is_autocast_enabled('cpu'):
            dtype = torch.get_autocast_dtype('cpu')
            q, k, v, mask = (None if t is None else t.to(dtype) for t in (q, k, v, mask))
        return _FusedAttention.apply(self.counter, q, k, v, mask)


def fake_step(model: nn.Module, shape: tuple[int, ...], mixed: bool) -> FakeStep:
    """Run one training step without values.

    Args:
        model: a PETL model on the meta device; it is moved to fake tensors, and its paths are not dropped.
        shape: of the input, (batch, 3, T, H, W) or (batch, 3, H, W).
        mixed: run under bfloat16 autocast.
    """
    for module in model.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.0  # drop-path may keep everything
        if hasattr(module, 'dot_product'):
            module.dot_product = F.scaled_dot_product_attention  # as on a GPU, even where fast uses another on a CPU
    flops, live = _Flops(), LiveBytes()
    try:
        with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True), _AttentionIsFused(flops):
            warnings.simplefilter('ignore')  # fake tensors have no address, which the cache of masks asks for
            model, inputs = model.to_empty(device='cpu').train(), torch.empty(shape)
            with live, flops, torch.autocast('cpu', torch.bfloat16, mixed):
                loss = loss_of(model, inputs)
                saved, forward = live.now, flops.total
            if loss.requires_grad:
                with flops:
                    loss.backward()
            return FakeStep(saved, forward, flops.total)
    finally:
        compute_mask.cache_clear()  # mmaction2 keeps the masks of all models: none of fake tensors may stay
