"""STAdapter: a bottleneck with a convolution over time, for image backbones on video."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .checks import ACTIVATIONS, at_least_one, one_of
from .delta import Delta, Site
from .grid import Grid


class STAdapter(Delta):
    """ST-Adapter (Pan et al. 2022), on the residual stream in front of attention or MLP::

        h <- h + up(f(DWConv3D(down(h))))     # patches; class and register tokens pass

    The depth-wise convolution runs over the frames, rows and columns of the patches, with zeros around them. The
    released code has no activation f, although the paper's formula has one: the default follows the code. The
    published ``12x384`` is one such delta at ``'between'``; ``24x384`` has a second one at ``'block'``.

    Parameters: 2 d a + d + (k + 2) a, k the number of the kernel's weights. down's weight and up's are drawn as
    nn.Linear's, all else is zero, so that step 0 is the plain backbone.

    Where only the class token is read, the delta at ``'between'`` of the last block changes nothing and gets no
    gradient, as in the released code; a warning says so.

    Args:
        dim: the width d of the tokens.
        grid: where they lie.
        d_bottle: the bottleneck's width a, at least 1. Defaults to 384.
        kernel: of the convolution, over frames, rows and columns; odd numbers. Defaults to (3, 1, 1).
        act: f: None (default), ``'GELU'`` or ``'ReLU'``.
        num_frames: T, how many images of the batch make a clip. Defaults to None: the backbone says it.

    Raises:
        UserError: for an invalid value.
    """

    places = ('block', 'between')
    reads = None
    needs_grid = True

    def __init__(
        self,
        dim: int,
        grid: Grid,
        *,
        d_bottle: int = 384,
        kernel: Sequence[int] = (3, 1, 1),
        act: str | None = None,
        num_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.num_frames = grid, grid.check_frames(num_frames, 'STAdapter')
        self.kernel, width = _kernel(kernel), at_least_one('d_bottle', d_bottle)
        self.down = nn.Linear(dim, width)
        padding = tuple(k // 2 for k in self.kernel)
        self.conv = nn.Conv3d(width, width, self.kernel, padding=padding, groups=width)
        self.act = _activation(act)
        self.up = nn.Linear(width, dim)
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta per block; warn where the last one cannot learn."""
        for site in sites:
            yield site, cls.at_site(site, **options)
        if sites[-1].place == 'between' and sites[-1].grid.reads_class:
            dead = sum(p.numel() for p in cls.at_site(sites[-1], **options).parameters())
            warnings.warn(
                f'STAdapter: the head reads the class token alone, which the last of {len(sites)} adapters does not '
                f'reach: its {dead:,} parameters get no gradient.',
                stacklevel=2,
            )

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the delta for one block.

        Raises:
            UserError: also where the tokens of the backbone lie in no known grid.
        """
        cls.check_options(options)
        return cls(site.in_dim, site.known_grid('STAdapter'), **options)

    def reset_parameters(self) -> None:
        """Draw down and up again, and set the convolution and all biases to zero."""
        for layer in (self.down, self.up):
            layer.reset_parameters()
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def before(self, x: Tensor) -> Tensor:
        """Return the stream with the adapter's output added to its patches.

        Args:
            x: (B T, L + H W, d), or (B, L + T H W, d) of a backbone with all frames in one row; see :class:`Grid`.
        """
        h = self.down(self.grid.patches(x))
        return self.grid.with_patches(x, self.up(self.act(self._convolved(h, x))))

    def _convolved(self, h: Tensor, x: Tensor) -> Tensor:
        """Return the convolution of the bottleneck, (B T, H W, a) or (B, T H W, a), in the same shape."""
        if self.kernel[1:] != (1, 1):
            volume = h.reshape(-1, *self.grid.positions(x, self.num_frames, 'STAdapter'), h.shape[-1])
            return self.conv(volume.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).reshape(h.shape)
        # over frames alone rows and columns do not matter, and two dimensions are faster
        volume = h.reshape(*self.grid.clips_of(x, self.num_frames, 'STAdapter'), -1, h.shape[-1])
        weight, padding = self.conv.weight[..., 0], (self.kernel[0] // 2, 0)
        y = F.conv2d(volume.permute(0, 3, 1, 2), weight, self.conv.bias, padding=padding, groups=h.shape[-1])
        return y.permute(0, 2, 3, 1).reshape(h.shape)


def _kernel(kernel: Any) -> tuple[int, int, int]:
    """Return three odd sizes, or raise :class:`UserError`."""
    sizes = tuple(kernel) if isinstance(kernel, (list, tuple)) else ()
    if len(sizes) != 3 or not all(type(k) is int and k > 0 and k % 2 for k in sizes):
        raise UserError(f'STAdapter kernel must be three odd numbers, over frames, rows and columns; got {kernel!r}.')
    return sizes


def _activation(act: Any) -> nn.Module:
    one_of('STAdapter act', act, (None, *ACTIVATIONS))
    return nn.Identity() if act is None else ACTIVATIONS[act]()
