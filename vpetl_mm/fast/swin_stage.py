"""Video Swin's stage and block on tokens in the order of their windows: fewer copies, on a CPU and on a GPU."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from mmaction.models.backbones.swin import BasicLayer, SwinTransformerBlock3D, compute_mask, get_window_size
from torch import Tensor, nn

from .recompute import is_noted
from .stochastic_depth import add_branch
from .watch import is_transformed, is_watched

Triple = tuple[int, int, int]


@lru_cache
def window_order(size: Triple, window: Triple, shift: Triple | None) -> np.ndarray:
    """Return the tokens of a shifted (T, H, W) volume by window, (T H W,), or for None in the volume's order."""
    index = np.arange(math.prod(size))
    if shift is None:
        return index
    index = np.roll(index.reshape(size), [-s for s in shift], (0, 1, 2))
    cut = [part for n, w in zip(size, window, strict=True) for part in (n // w, w)]
    return index.reshape(cut).transpose(0, 2, 4, 1, 3, 5).ravel()


class _Reorder(torch.autograd.Function):
    """Reorders tokens, (B, L, C), in one copy, and the gradient in another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.orders = order, inverse
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, inverse = ctx.orders
        return _Reorder.apply(grad, inverse, order), None, None


class WindowedStage(BasicLayer):
    """mmaction2's stage, with tokens in the order of their windows from block to block.

    From block to block tokens are copied once, instead of shifted, cut into windows, put together and shifted back.
    The host's own forward is used for sizes that windows do not divide, for blocks of another class, with activation
    checkpointing, torch.compile and torch.func, and with dropout and hooks, which see the host's order and shapes.
    """

    def forward(self, x: Tensor, do_downsample: bool = True) -> Tensor:
        """Run a stage, (B, C, T, H, W) to (B, T', H', W', C')."""
        size = tuple(x.shape[2:])
        window, shift = get_window_size(size, self.window_size, self.shift_size)
        fits = all(n % w == 0 for n, w in zip(size, window, strict=True))
        fits = fits and all(isinstance(b, WindowedBlock) for b in self.blocks)
        if not fits or self.with_cp or is_transformed() or _drops_out(self) or _is_seen(self.blocks):
            return super().forward(x, do_downsample)
        shift = tuple(shift)
        x = self._blocks(x.permute(0, 2, 3, 4, 1), size, tuple(window), shift)
        return self.downsample(x) if self.downsample is not None and do_downsample else x

    def _blocks(self, x: Tensor, size: Triple, window: Triple, shift: Triple) -> Tensor:
        """Run all blocks, (B, T, H, W, C) to the same shape."""
        natural, windowed = x.shape, (len(x), -1, math.prod(window), x.shape[-1])
        mask = compute_mask(*size, window, shift, x.device) if any(shift) else None
        x, order = x.flatten(1, 3), None
        for block in self.blocks:
            needed = shift if any(block.shift_size) else (0, 0, 0)
            x = self._reorder(x, size, window, order, needed)
            order = needed
            x = block(x.view(windowed), mask if any(needed) else None).flatten(1, 2)
        return self._reorder(x, size, window, order, None).view(natural)

    def _reorder(self, x: Tensor, size: Triple, window: Triple, old: Triple | None, new: Triple | None) -> Tensor:
        """Reorder tokens from the windows of one shift to those of another."""
        key = (size, window, old, new, x.device)
        if key not in self._orders:
            order = window_order(size, window, old).argsort()[window_order(size, window, new)]
            same = np.array_equal(order, np.arange(len(order)))
            pair = (torch.as_tensor(o, device=x.device) for o in (order, order.argsort()))
            self._orders[key] = None if same else tuple(pair)
        orders = self._orders[key]
        return x if orders is None else _Reorder.apply(x, *orders)

    @cached_property
    def _orders(self) -> dict[tuple, tuple[Tensor, Tensor] | None]:
        return {}


def _drops_out(module: nn.Module) -> bool:
    return module.training and any(isinstance(m, nn.Dropout) and m.p for m in module.modules())


def _is_seen(blocks: nn.Module) -> bool:
    return any(is_watched(m) and not is_noted(m) for m in blocks.modules())


class WindowedBlock(SwinTransformerBlock3D):
    """mmaction2's block, which also takes tokens in the order of their windows."""

    def forward(self, x: Tensor, mask_matrix: Tensor | None) -> Tensor:
        """Run a block.

        Args:
            x: (B, T, H, W, C), or (B, nW, N, C), windows of N tokens.
            mask_matrix: the shift mask, (nW, N, N); with tokens in windows None for a block without a shift.

        Returns:
            A tensor of the shape of ``x``.
        """
        if x.dim() == 5:
            return super().forward(x, mask_matrix)
        x = add_branch(x, lambda part: self._attend(part, mask_matrix), self.drop_path)
        if getattr(self, 'branched', False):  # with deltas that add to the stream outside drop-path
            return x + self.forward_part2(x)
        return add_branch(x, lambda part: self.mlp(self.norm2(part)), self.drop_path)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if not len(x):  # every clip was dropped; torch's kernels would leave gradients of None instead of zeros
            parameters = (p for m in (self.norm1, self.attn) for p in m.parameters() if p.requires_grad)
            return x + sum(p.sum() for p in parameters)
        return self.attn(self.norm1(x).flatten(0, 1), mask).view_as(x)
