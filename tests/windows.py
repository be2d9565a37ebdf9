"""Window attentions of a host library and of ours, with the same weights."""

from __future__ import annotations

import tiny
import torch
from mmaction.models.backbones.swin import WindowAttention3D
from mmpretrain.models.utils import WindowMSA
from torch import Tensor, nn

from vpetl_mm.fast.window_attention import CachedWindowAttention3D, CachedWindowMSA
from vpetl_mm.models.window_attention import FastWindowAttention3D, FastWindowMSA

DIM, HEADS = 12, 3
WINDOWS = {WindowAttention3D: (2, 3, 3), WindowMSA: (3, 3)}
CACHED = (CachedWindowAttention3D, CachedWindowMSA)
KINDS = (FastWindowAttention3D, FastWindowMSA, *CACHED)


def pair(cls: type, seed: int = 0, **options) -> tuple[nn.Module, nn.Module]:
    """The host's attention and ours."""
    theirs = next(t for t in WINDOWS if issubclass(cls, t))
    host = tiny.randomised(theirs(DIM, WINDOWS[theirs], HEADS, **options), seed)
    ours = cls(**cls.like(host))
    ours.load_state_dict(host.state_dict())
    return host, ours


def size(attention: nn.Module) -> int:
    """How many tokens a window has."""
    return len(attention.relative_position_index)


def tokens(attention: nn.Module, windows: int, n: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(windows, n or size(attention), DIM, generator=generator)


def mask_of(attention: nn.Module, windows: int | None, seed: int = 0) -> Tensor | None:
    return None if windows is None else tiny.shift_mask(windows, size(attention), seed)


def freeze_table(*attentions: nn.Module) -> None:
    for attention in attentions:
        attention.relative_position_bias_table.requires_grad_(False)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
