"""Mona: a bottleneck with depth-wise convolutions of several sizes, on the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .addition import Addition
from .checks import at_least_one, number
from .delta import Delta, Site
from .grid import Grid


class Mona(Delta):
    """Multi-cognitive visual adapter (Yin et al. 2025), on the stream h behind attention and behind the MLP::

        x = s1 * LN(h) + s2 * h
        p = down(x)
        q = p + mean over k of DW_k(p)
        h <- h + up(drop(GELU(q + PW(q))))

    DW_k is a depth-wise k x k convolution over the patches of an image or frame, with zeros around it, also where the
    attention is in windows, and PW a 1 x 1 convolution. s1 and s2 have one value for each channel. A class token is
    an image of one patch.

    LN starts as it does anywhere, s1 at 1e-6 and s2 at 1; the weights of down and up are drawn from a normal
    distribution with a standard deviation of 0.02, their biases are zero, and the convolutions are drawn as
    nn.Conv2d's. Step 0 is not the plain backbone. Parameters for kernels 3, 5 and 7, at each of the two places:
    2 d r + 5 d + r^2 + 88 r, which are 133 d + 9728 for r = 64.

    Args:
        dim: the width d of the tokens.
        grid: where they lie.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 64.
        kernels: the sizes k, odd numbers. Defaults to (3, 5, 7).
        dropout: in front of up, in training. Defaults to 0.1.

    Raises:
        UserError: for an invalid value.
    """

    places = ('between', 'block')
    default_at = places
    reads = 'output'
    needs_grid = True
    starts_plain = False

    def __init__(
        self,
        dim: int,
        grid: Grid,
        *,
        d_bottle: int = 64,
        kernels: Sequence[int] = (3, 5, 7),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.grid, r = grid, at_least_one('d_bottle', d_bottle)
        self.norm = nn.LayerNorm(dim)
        self.s1, self.s2 = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.down, self.up = nn.Linear(dim, r), nn.Linear(r, dim)
        self.depthwise = nn.ModuleList(nn.Conv2d(r, r, k, padding=k // 2, groups=r) for k in _odd(kernels))
        self.pointwise = nn.Conv2d(r, r, 1)
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for one block.

        Raises:
            UserError: also where the tokens of the backbone lie in no known grid.
        """
        cls.check_options(options)
        return cls(site.in_dim, site.known_grid('Mona'), **options)

    def reset_parameters(self) -> None:
        """Draw all weights again, and set the rest to where it starts."""
        for part in (self.norm, self.pointwise, *self.depthwise):
            part.reset_parameters()
        nn.init.constant_(self.s1, 1e-6)
        nn.init.ones_(self.s2)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Addition:
        """Return what is added to the stream.

        Args:
            h: (..., d); see :class:`Grid`.
        """
        p = self.down(self.s1 * self.norm(h) + self.s2 * h)
        q = self.grid.over_images(p, self._convolved, 'Mona')
        return Addition(self.dropout(F.gelu(q)), self.up.weight, self.up.bias)

    def _convolved(self, p: Tensor) -> Tensor:
        """Return q + PW(q), (B', r, H, W); the convolutions of several sizes are one of the largest."""
        largest = max(conv.weight.shape[-1] for conv in self.depthwise)
        weights = [F.pad(c.weight, [(largest - c.weight.shape[-1]) // 2] * 4) for c in self.depthwise]
        weight, bias = sum(weights) / len(weights), sum(c.bias for c in self.depthwise) / len(weights)
        q = p + F.conv2d(p, weight, bias, padding=largest // 2, groups=len(bias))
        return q + self.pointwise(q)


def _odd(kernels: Any) -> tuple[int, ...]:
    """Return the kernels' sizes, or raise :class:`UserError`."""
    sizes = tuple(kernels) if isinstance(kernels, (list, tuple)) else ()
    if not 0 < len(sizes) <= 16 or not all(type(k) is int and 0 < k < 100 and k % 2 for k in sizes):
        raise UserError(f'Mona kernels must be odd numbers, such as (3, 5, 7); got {kernels!r}.')
    return sizes
