"""FrameEmbedding: a trained embedding of the number of the frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one
from .delta import Delta, Site
from .grid import Grid


class FrameEmbedding(Delta):
    """AIM's ``temporal_embedding``: every token of frame t, class token included, gets e_t, in front of block 1.

    The table starts at zero, so that step 0 is the plain backbone. Parameters: T d, once.

    Args:
        dim: the width d of the tokens.
        grid: where they lie.
        num_frames: the number T of frames of a clip.

    Raises:
        UserError: for a value below 1.
    """

    places = ('block',)
    reads = None
    needs_grid = True

    def __init__(self, dim: int, grid: Grid, *, num_frames: int) -> None:
        super().__init__()
        self.grid, self.num_frames = grid, at_least_one('num_frames', num_frames)
        self.table = nn.Parameter(torch.empty(num_frames, dim))
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta, at the first block."""
        cls.check_options(options)
        grid = sites[0].known_grid('FrameEmbedding')
        if grid.joint:
            raise UserError('FrameEmbedding needs frames in the batch, and here they are in one row of tokens.')
        yield sites[0], cls(sites[0].in_dim, grid, **options)

    def reset_parameters(self) -> None:
        """Set the table to zero."""
        nn.init.zeros_(self.table)

    def before(self, x: Tensor) -> Tensor:
        """Return the tokens, (B T, N, d), with the embedding of their frame added."""
        clips, frames = self.grid.clips_of(x, self.num_frames, 'FrameEmbedding')
        if frames != self.num_frames:
            raise UserError(f'FrameEmbedding has num_frames={self.num_frames}, and the clips have {frames} frames.')
        return x + self.table.repeat(clips, 1)[:, None]
