"""Where the tokens of a backbone lie: in which frame, row and column, for deltas that look along time."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from torch import Tensor, nn

from ..errors import UserError


@dataclass(eq=False)
class Grid:
    """The tokens that one backbone passes from block to block.

    An image backbone sees a clip as T images, neighbours in the batch: (B T, L + H W, d), L leading tokens in front
    of the patches. A video backbone has all patches of a clip in one row, frame by frame: (B, L + T H W, d).

    A module that folds the frames of clips into the batch has such an object as its attribute ``grid``, and sets
    ``frames`` in every forward pass; the deltas on the backbone inside it read the same object.

    Args:
        frames: how many frames of a clip follow each other, in the batch or, if ``joint``, in the row of tokens.
            Defaults to None, not known: images.
        size: (H, W). Defaults to None, not known.
        leading: how many class and register tokens stand in front of the patches. Defaults to 0.
        joint: whether the patches of all frames are in one row. Defaults to False.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    leading: int = 0
    joint: bool = False

    def clips(self, x: Tensor, frames: int | None, name: str) -> int:
        """Return how many frames the clips have that were folded into the batch of ``x``, (B T, N, d).

        Args:
            x: the tokens.
            frames: T, where nothing else says it.
            name: of the method that asks.

        Raises:
            UserError: where nothing says it, or ``x`` holds no whole number of clips.
        """
        frames = self.frames or frames
        if frames is None:
            raise UserError(f'{name} looks along the frames of clips, and the model was given images.')
        if x.shape[0] % frames:
            raise UserError(f'{name} needs whole clips of {frames} frames in the batch, got {x.shape[0]} images.')
        return frames

    def positions(self, x: Tensor, frames: int | None, name: str) -> tuple[int, int, int]:
        """Return T, H and W of the patches of ``x``; see :meth:`clips`.

        H and W are the backbone's own where they fit the number of patches, else those of a square.

        Raises:
            UserError: where neither fits.
        """
        patches = x.shape[1] - self.leading
        if not self.joint:
            frames, each = self.clips(x, frames, name), patches
        else:
            frames = self.frames or 1
            each = patches // frames
        if self.size is not None and each == self.size[0] * self.size[1]:
            height, width = self.size
        else:
            height = width = isqrt(each)
        if height * width * (frames if self.joint else 1) != patches:
            raise UserError(f'{name} does not know the height and width of {patches} patches; give square images.')
        return frames, height, width


def grid_of(model: nn.Module, path: str, leading: tuple[int | str, ...], joint: bool) -> Grid:
    """Return the grid of a backbone: that of the module which folds frames for it, else a new one.

    Args:
        model: what deltas are put on.
        path: of the backbone in it, '' for the model itself.
        leading: numbers of leading tokens, or the attributes of the backbone that hold them; their sum counts.
        joint: see :class:`Grid`.
    """
    around = [model]
    for part in path.split('.') if path else ():
        around.append(getattr(around[-1], part))
    backbone = around[-1]
    grid = next((m.grid for m in around if isinstance(getattr(m, 'grid', None), Grid)), None) or Grid()
    grid.leading = sum(n if isinstance(n, int) else _attribute(backbone, n) or 0 for n in leading)
    grid.size, grid.joint = size_of(backbone), joint
    if joint:
        grid.frames = _frames_of(backbone, grid)
    return grid


def size_of(backbone: nn.Module) -> tuple[int, int] | None:
    """Return rows and columns of patches of an image of the backbone's own size; None where it does not say."""
    for name in ('patch_embed.grid_size', 'patch_resolution', 'grid_size'):  # timm, mmpretrain, mmaction2
        size = _attribute(backbone, name)
        if size is not None:
            return int(size[0]), int(size[1])
    for owner in (getattr(backbone, 'config', None), backbone):  # transformers, torchvision
        image, patch = getattr(owner, 'image_size', None), getattr(owner, 'patch_size', None)
        if isinstance(image, int) and isinstance(patch, int):
            return image // patch, image // patch
    return None


def _frames_of(backbone: nn.Module, grid: Grid) -> int | None:
    """Return how many frames of tokens a video backbone has, from its position embedding or its config."""
    table = _attribute(backbone, 'pos_embed')
    if isinstance(table, Tensor) and grid.size is not None:
        return table.shape[1] // (grid.size[0] * grid.size[1])
    config = getattr(backbone, 'config', None)
    frames, tubelet = (getattr(config, n, None) for n in ('num_frames', 'tubelet_size'))
    return frames // tubelet if isinstance(frames, int) and isinstance(tubelet, int) else None


def _attribute(module: object, name: str) -> object:
    """Return what a path of attributes leads to; None where there is nothing."""
    for part in name.split('.'):
        module = getattr(module, part, None)
    return module
