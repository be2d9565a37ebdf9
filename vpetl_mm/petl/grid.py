"""Where the tokens of a backbone lie: in which frame, row and column, for deltas that look along time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one


@dataclass(eq=False)
class Grid:
    """The tokens that one backbone passes from block to block.

    An image backbone sees a clip as T images, neighbours in the batch: (B T, L + H W, d), L leading tokens in front
    of the patches. A video backbone has all patches of a clip in one row, frame by frame: (B, L + T H W, d).

    A module that folds the frames of clips into the batch has such an object as its attribute ``grid``, and sets
    ``frames`` in every forward pass, None for images; the deltas on the backbone inside it read the same object.

    Args:
        frames: T, how many frames of a clip follow each other, in the batch or, if ``joint``, in the row of tokens.
            Defaults to None, not known: images.
        size: (H, W), of images of the backbone's own size until it has seen others. Defaults to None, not known.
        leading: L, how many class and register tokens stand in front of the patches. Defaults to 0.
        joint: whether the patches of all frames are in one row. Defaults to False.
        rotary: whether the attention turns queries and keys by their place in the image. Defaults to False.
        reads_class: whether the head is known to read the class token alone. Defaults to False.
        is_told: whether a module around the backbone sets ``frames``. Defaults to True.
        is_counted: whether ``size`` is what embeds patches has said of the last images. Defaults to False.
        backbone: the grid of the backbone, where this is that of one block in windows, which notes its own size.
            Defaults to None.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    leading: int = 0
    joint: bool = False
    rotary: bool = False
    reads_class: bool = False
    is_told: bool = True
    is_counted: bool = False
    backbone: Grid | None = None

    def note(self, x: Tensor, size: Sequence[int] | None) -> None:
        """Note the size of a block's input, (B T, H W, d), (B T, H, W, d) or (B, T, H, W, d).

        Args:
            x: the input.
            size: (H, W), where its tokens are in one row.
        """
        if x.dim() == 3:
            self.size = None if size is None else (int(size[0]), int(size[1]))
            self.frames = self.backbone.frames
        else:
            self.size, self.joint = (x.shape[-3], x.shape[-2]), x.dim() == 5
            self.frames = x.shape[1] if self.joint else self.backbone.frames

    def note_patches(self, shape: Sequence[int]) -> None:
        """Note how many patches there are, as what embeds them says: (H, W), or (T, H, W)."""
        self.size, self.is_counted = (int(shape[-2]), int(shape[-1])), True
        if self.joint and len(shape) == 3:
            self.frames = int(shape[0])

    def patches(self, x: Tensor) -> Tensor:
        """Return the patches of ``x``, in one row for each image or clip, (B, N, d), without leading tokens."""
        return x[:, self.leading :] if x.dim() == 3 else x.flatten(1, -2)

    def with_patches(self, x: Tensor, added: Tensor) -> Tensor:
        """Return ``x`` with something added to its :meth:`patches`; leading tokens pass."""
        if x.dim() > 3:
            return x + added.view_as(x)
        return x + (F.pad(added, (0, 0, self.leading, 0)) if self.leading else added)

    def over_images(self, x: Tensor, change: Callable[[Tensor], Tensor], name: str) -> Tensor:
        """Return ``x`` as a function of images changes each frame; a leading token is an image of one patch.

        Args:
            x: (B, L + N, d), or with the dimensions of its grid.
            change: of (B', d, H, W) to (B', d', H, W).
            name: of the method that asks.

        Raises:
            UserError: where the height and width are not known.
        """
        rows = self.patches(x)
        frames = rows.shape[1] // self._frame(rows, name) if self.joint else 1
        images = rows.reshape(len(rows) * frames, *self._size_of(rows.shape[1] // frames, name), -1)
        y = change(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if x.dim() > 3:
            return y.reshape(*x.shape[:-1], -1)
        y = y.reshape(*rows.shape[:-1], -1)
        if not self.leading:
            return y
        tokens = x[:, : self.leading].flatten(0, 1)[..., None, None]
        return torch.cat([change(tokens).view(len(x), self.leading, -1), y], dim=1)

    def _frame(self, rows: Tensor, name: str) -> int:
        """Return how many patches a frame of a joint row has: as its own size says, else as its frames say."""
        if self.size is not None and rows.shape[1] % (self.size[0] * self.size[1]) == 0:
            return self.size[0] * self.size[1]
        if not self.frames or rows.shape[1] % self.frames:
            raise UserError(f'{name} does not know how many frames make a row of {rows.shape[1]} patches.')
        return rows.shape[1] // self.frames

    def _size_of(self, patches: int, name: str) -> tuple[int, int]:
        """Return H and W of so many patches: the backbone's own where they fit, else those of a square."""
        if self.size is not None and patches == self.size[0] * self.size[1]:
            return self.size
        if self.is_counted:
            raise UserError(
                f'{name} sees {patches} patches of {self.size[0]} x {self.size[1]}: the place table is wrong about '
                'the leading tokens of this backbone.'
            )
        side = isqrt(patches)
        if side * side != patches:
            raise UserError(f'{name} does not know the height and width of {patches} patches; give square images.')
        return side, side

    def check_frames(self, num_frames: int | None, name: str) -> int | None:
        """Return a delta's option ``num_frames``, at least 1; None where the backbone says it.

        Args:
            num_frames: the option.
            name: of the method.

        Raises:
            UserError: for another value, and where nothing says how many frames there are.
        """
        if num_frames is not None:
            return at_least_one('num_frames', num_frames)
        if not self.joint and not self.is_told:
            raise UserError(
                f'{name} needs num_frames, how many images of the batch make a clip: this is an image model, and '
                'nothing around it says so.'
            )
        return None

    def clips_of(self, x: Tensor, num_frames: int | None, name: str) -> tuple[int, int]:
        """Return how many clips the tokens ``x`` hold, and how many frames each has.

        Args:
            x: (B T, N, d), or (B, N, d) if ``joint``.
            num_frames: T, where nothing else says it.
            name: of the method that asks.

        Raises:
            UserError: where nothing says it, or ``x`` holds no whole clips.
        """
        frames, rows = self.frames or num_frames, x.shape[0]
        if frames is None:
            raise UserError(f'{name} looks along the frames of clips, and the model was given images.')
        if self.joint and self.patches(x).shape[1] % frames:
            raise UserError(f'{name} needs whole frames: {x.shape[1]} tokens are not {frames} equal ones.')
        if not self.joint and rows % frames:
            raise UserError(f'{name} needs whole clips of {frames} frames, and the batch has {rows} images.')
        return (rows if self.joint else rows // frames), frames

    def positions(self, x: Tensor, num_frames: int | None, name: str) -> tuple[int, int, int]:
        """Return T, H and W of the patches of ``x``; see :meth:`clips_of`.

        H and W are the backbone's own where they fit the number of patches, else those of a square.

        Raises:
            UserError: also where neither fits.
        """
        frames = self.clips_of(x, num_frames, name)[1]
        patches = self.patches(x).shape[1] // (frames if self.joint else 1)
        return frames, *self._size_of(patches, name)


def grid_of(chain: Sequence[nn.Module], leading: tuple[int | str, ...], joint: bool, rotary: bool) -> Grid:
    """Return the grid of a backbone: that of the module which folds frames for it, else a new one.

    Args:
        chain: modules, each inside the one before, the last being the backbone.
        leading: numbers of leading tokens, or the attributes of the backbone that hold them; their sum counts.
        joint: see :class:`Grid`.
        rotary: see :class:`Grid`.
    """
    backbone = chain[-1]
    grids = (getattr(m, 'grid', None) for m in chain)
    grid = next((g for g in grids if isinstance(g, Grid)), None) or Grid(is_told=False)
    grid.leading = sum(n if isinstance(n, int) else _attribute(backbone, n) or 0 for n in leading)
    grid.size, grid.joint = patches_of(backbone), joint
    grid.rotary = rotary
    pools = _attribute(backbone, 'global_pool'), _attribute(backbone, 'out_type')  # timm, mmpretrain
    grid.reads_class = grid.reads_class or pools[0] == 'token' or pools[1] == 'cls_token'
    if joint:
        grid.frames = _frames_of(backbone, grid)
    return grid


def chain_to(model: nn.Module, path: str) -> list[nn.Module]:
    """Return ``model``, and each module inside the one before, down to the one at ``path``."""
    chain = [model]
    for part in path.split('.') if path else ():
        chain.append(getattr(chain[-1], part))
    return chain


def patches_of(backbone: nn.Module) -> tuple[int, int] | None:
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
