"""A transformer of one's own, whose qkv is one layer; needs torch and vpetl_mm.petl alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpetl_mm.petl.inner import Inner
from vpetl_mm.petl.layouts.entry import transformer

# what a reader would write for it
LAYOUT = transformer(r'blocks\.\d+', norms=r'(.*\.)?norm\d?', inner=(Inner(),), adds_residual=('FusedBlock',))


class FusedAttention(nn.Module):
    """Self-attention of two heads, (B, N, d) to the same shape."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class FusedBlock(nn.Module):
    """A block with its norms in front."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-12), nn.LayerNorm(d, eps=1e-12)
        self.attn, self.mlp = FusedAttention(d), nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Fused(nn.Module):
    """Blocks, a norm, and a head for the mean of the tokens."""

    def __init__(self, d: int = 24, hidden: int = 48, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FusedBlock(d, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(d, eps=1e-12), nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(x)).mean(1))
