"""AIM's attention over time: a block's frozen attention, used a second time along the frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, number, one_of
from .delta import Delta, Site
from .deltas import without_deltas
from .drop_path import DropBranch, at_rates
from .grid import Grid


class Bottleneck(nn.Module):
    """AIM's adapter, up(GELU(down(x))): down's weight is drawn with a standard deviation of 0.02, all else is zero.

    Args:
        dim: the width d of the tokens.
        width: of the bottleneck.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.act, self.up = nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim)

    def reset_parameters(self) -> None:
        """Draw down again and set the rest to zero."""
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapter's output, of the shape of ``x``, (..., d)."""
        return self.up(self.act(self.down(x)))


class AIMTime(Delta):
    """The temporal part of AIM (Yang et al. 2023), in front of a whole block::

        h <- h + drop_path(T(MSA(norm(h))))                  # num_tadapter = 1
        h <- h + drop_path(T(MSA(z + T_in(z)))), z = norm(h)   # num_tadapter = 2

    MSA and norm are the block's own, with their frozen weights and without any delta, but among the frames: each
    token attends to those at its place in the other frames of its clip, class and register tokens too. T and T_in
    are bottlenecks, up(GELU(down(.))); T has no skip and starts at zero, so that step 0 is the plain backbone.

    Together with two other deltas it is AIM's block; ``configs/_base_/methods/aim.py`` has them all::

        h <- h + y + S(y), y = MSA(norm1(h))                 # LinearAdapter at 'proj', sequential
        h <- h + MLP(z) + drop_path(s M(z)), z = norm2(h)    # AdaptMLP with act='GELU'

    Parameters: 2 d r + r + d, twice that for ``num_tadapter=2``.

    Args:
        dim: the width d of the tokens.
        grid: where they lie.
        attention: the block's, its output projection included; referenced, not owned.
        norm: the norm in front of it; likewise.
        d_bottle: the bottleneck's width r, at least 1. Defaults to None, d / 4.
        num_tadapter: 1 (default) or 2.
        drop_path: how likely a frame goes without, in the last block; less, evenly, in earlier ones. Defaults to 0.
        num_frames: how many images of the batch make a clip. Defaults to None: the backbone says it.

    Raises:
        UserError: for an invalid value.
    """

    places = ('block',)
    reads = None
    needs_grid = True

    def __init__(
        self,
        dim: int,
        grid: Grid,
        attention: nn.Module,
        norm: nn.Module,
        *,
        d_bottle: int | None = None,
        num_tadapter: int = 1,
        drop_path: float = 0.0,
        num_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.num_frames = grid, grid.check_frames(num_frames, 'AIMTime')
        self.__dict__.update(attention=attention, norm=norm)  # not children: their weights are the backbone's
        width = at_least_one('d_bottle', max(dim // 4, 1) if d_bottle is None else d_bottle)
        both = one_of('num_tadapter', num_tadapter, (1, 2)) == 2
        self.inward = Bottleneck(dim, width) if both else None
        self.outward = Bottleneck(dim, width)
        self.drop = DropBranch(number('drop_path', drop_path, 0, 1))
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta per block, whose drop-path grows with the depth."""
        return at_rates(cls, sites, options)

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for one block.

        Raises:
            UserError: also where frames are not folded into the batch, or the attention has positions of its own.
        """
        cls.check_options(options)
        grid, block = site.known_grid('AIMTime'), type(site.block).__name__
        if grid.backbone is not None:
            raise UserError(f'AIMTime needs attention to all tokens of a row; that of {block} is in windows.')
        if grid.joint:
            raise UserError(f'AIMTime needs frames in the batch; {block} attends to those of a clip already.')
        if grid.rotary:
            raise UserError(f'AIMTime: the attention of {block} has rotary positions, which frames have not.')
        return cls(site.in_dim, grid, site.attention, site.norm, **options)

    def reset_parameters(self) -> None:
        """Draw the bottlenecks again."""
        for part in (self.inward, self.outward):
            if part is not None:
                part.reset_parameters()

    def before(self, x: Tensor) -> Tensor:
        """Return the stream with what the attention over time adds to it.

        Args:
            x: (B T, N, d).
        """
        frames = self.grid.clips_of(x, self.num_frames, 'AIMTime')[1]
        z = self.norm(x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1))  # (B N, T, d)
        z = z if self.inward is None else z + self.inward(z)
        y = self.outward(_attend(self.attention, z))
        y = y.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)  # (B T, N, d)
        return x + self.drop(y)


def _attend(attention: nn.Module, z: Tensor) -> Tensor:
    """Return what a plain attention gives for its tokens alone, (B N, T, d) to the same shape."""
    if isinstance(attention, nn.MultiheadAttention):  # torch's, which asks for keys and values too
        return without_deltas(attention, z, z, z, need_weights=False)[0]
    y = without_deltas(attention, z)
    return y[0] if isinstance(y, tuple) else y
