"""DTL: a side stream, gathered from every block and added to the last ones; the first need no gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, number
from .delta import Delta, Site
from .grid import Grid


@dataclass(eq=False)
class Stream:
    """The side stream on its way through the blocks.

    Args:
        e: what has been gathered so far, of the shape of a block's input; None in front of the first block.
        block: the number of the block that comes next.
    """

    e: Tensor | None = None
    block: int = 0

    def __reduce__(self) -> tuple:
        """Copy it empty: what is in it belongs to one forward pass."""
        return Stream, ()


class DTLShared(nn.Module):
    """DTL+'s convolution, one for all blocks: depth-wise, without a bias.

    Args:
        dim: the width d of the tokens.
        kernel: k, of both sides.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel, padding='same', groups=dim, bias=False)

    def reset_parameters(self) -> None:
        """Draw the convolution again, as nn.Conv2d's."""
        self.conv.reset_parameters()


class DTL(Delta):
    """Disentangled transfer learning (Fu et al. 2024), a side stream e along the L blocks::

        e_i = e_{i-1} + B_i A_i h_i,  e_0 = 0                  # in front of block i
        h_{i+1} <- Block_i(h_i) + theta(e_i)  for i >= M       # theta(e) = e sigmoid(beta e)

    DTL+ has theta(e) convolved over the patches of an image, with one convolution for all blocks; class and register
    tokens pass. No gradient runs through blocks 1 to M: what they compute does not depend on what is trained, and
    autograd keeps nothing of their inside. A is drawn Kaiming-uniform (a = sqrt 5) and B starts at zero, so that
    step 0 is the plain backbone. The published head reads the mean of the patch tokens.

    Parameters: 2 d r L, and d k^2 for DTL+.

    Args:
        dim: the width d of the tokens.
        depth: i - 1, the number of the block from 0.
        stream: the side stream, which all blocks pass on.
        grid: where the tokens lie; None where nothing is convolved.
        shared: DTL+'s convolution; the backbone owns it. None for DTL.
        adds: whether i >= M.
        is_last: whether i = L.
        rank: r, at least 1. Defaults to 2.
        beta: of theta. Defaults to 100.
        first: M, the first block behind which the side stream is added, from 1. Defaults to None, L // 2 + 1.
        kernel: k of DTL+'s convolution, published with 3, 4 and 5. Defaults to None: DTL, without it.

    Raises:
        UserError: for an invalid value, on a backbone whose width changes, and where blocks are run again in the
            backward pass (gradient checkpointing), which the side stream does not pass a second time.
            ``fully_shard`` of single blocks does not fit either: it waits for gradients of every block's output.
    """

    places = ('block',)
    needs_same_tokens = True

    def __init__(
        self,
        dim: int,
        depth: int,
        stream: Stream,
        grid: Grid | None,
        shared: DTLShared | None,
        adds: bool,
        is_last: bool,
        *,
        rank: int = 2,
        beta: float = 100.0,
        first: int | None = None,
        kernel: int | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.stream, self.grid, self.is_last = depth, stream, grid, is_last
        self.needs_grid, self.reads = grid is not None, 'output' if adds else None
        if shared is not None:
            self.share(shared)
        self.beta = number('beta', beta)
        self.A = nn.Linear(dim, at_least_one('rank', rank), bias=False)
        self.B = nn.Linear(rank, dim, bias=False)
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta per block, along which one side stream runs."""
        cls.check_options(options)
        if len(widths := sorted({site.out_dim for site in sites})) > 1:
            raise UserError(f'DTL needs blocks of one width, and those of this backbone have {widths}.')
        first, kernel = options.get('first'), options.get('kernel')
        first = len(sites) // 2 + 1 if first is None else at_least_one('first', first)
        if first > len(sites):
            raise UserError(f'DTL first={first}: the backbone has {len(sites)} blocks.')
        shared = None if kernel is None else DTLShared(widths[0], at_least_one('kernel', kernel))
        stream = Stream()
        for i, site in enumerate(sites):
            grid = None if kernel is None else site.known_grid('DTL')
            numbers = i + 1 >= first, i + 1 == len(sites)
            yield site, cls(site.in_dim, i, stream, grid, shared, *numbers, **options)

    def reset_parameters(self) -> None:
        """Draw A again and set B to zero."""
        nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.B.weight)

    def before(self, x: Tensor) -> Tensor:
        """Return the block's input, from which the side stream has gathered."""
        stream = self.stream
        if self.depth != (stream.block if self.depth else 0):
            raise UserError(
                'DTL: the blocks did not run in their order, once each; a gradient checkpoint that runs them again '
                'loses the side stream.'
            )
        gathered = self.B(self.A(x))
        stream.e = gathered if self.depth == 0 else stream.e + gathered
        stream.block = self.depth + 1
        return x

    def forward(self, y: Tensor) -> Tensor:
        """Return theta(e), which is added to the block's output, of its shape."""
        e = self.stream.e
        v = e * torch.sigmoid(self.beta * e)
        if self.is_last:
            self.stream.e = None
        if self.grid is None:
            return v
        leading = self.grid.leading if v.dim() == 3 else 0
        convolved = self.grid.over_images(v, self.shared.conv, 'DTL')
        return torch.cat([v[:, :leading], convolved[:, leading:]], dim=1) if leading else convolved
