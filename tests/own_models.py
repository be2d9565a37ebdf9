"""Transformers of one's own that the place table does not know, each as a reader might write it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D = 16


class Apart(nn.Module):
    """Self-attention with a layer each for q, k and v, of which k has no bias, (B, N, d) to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = nn.Linear(D, D), nn.Linear(D, D, bias=False), nn.Linear(D, D)
        self.out = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ApartBlock(nn.Module):
    """A block whose parts have names of its own, and RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.attention = nn.RMSNorm(D), Apart()
        self.before_feed, self.feed = (
            nn.RMSNorm(D),
            nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.feed(self.before_feed(x))


class GatedMLP(nn.Module):
    """An MLP with two first layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(D, 2 * D), nn.Linear(D, 2 * D), nn.Linear(2 * D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class TorchBlock(nn.Module):
    """A block with torch's own attention, and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = (
            nn.LayerNorm(D),
            nn.MultiheadAttention(D, 2, batch_first=True),
            nn.LayerNorm(D),
        )
        self.mlp = GatedMLP()

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class PostNormBlock(ApartBlock):
    """The same with its norms behind attention and MLP."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.before_attention(x + self.attention(x))
        return self.before_feed(x + self.feed(x))


class TwoBlocks(nn.Module):
    """Images of 32 x 32 to three classes.

    Args:
        block: the class of its two blocks.
    """

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.positions = nn.Conv2d(3, D, 8, 8), nn.Parameter(torch.zeros(1, 16, D))
        self.layers, self.norm, self.head = nn.Sequential(block(), block()), nn.LayerNorm(D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(tokens)).mean(1))


class OwnViT(TwoBlocks):
    """With names of its own."""

    def __init__(self) -> None:
        super().__init__(ApartBlock)


class TorchViT(TwoBlocks):
    """With torch's attention."""

    def __init__(self) -> None:
        super().__init__(TorchBlock)


class PostNormViT(TwoBlocks):
    """With norms behind attention and MLP."""

    def __init__(self) -> None:
        super().__init__(PostNormBlock)


class EncoderViT(nn.Module):
    """Blocks that are torch's own, which pass their layers by."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 2, 2 * D, batch_first=True, norm_first=True)
        self.stem, self.encoder = nn.Conv2d(3, D, 8, 8), nn.TransformerEncoder(layer, 2)
