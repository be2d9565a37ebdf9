"""Models of other libraries as backbones: what those of timm and of transformers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import UserError, reason
from ..petl import layout_of
from ..petl.grid import Grid
from .build import WRONG, on_meta
from .folding import folded, over_time
from .inputs import Inputs


class WrappedBackbone(BaseModule):
    """A model of another library, at ``model``: images and clips in, features as the host libraries' heads want them.

    An image model sees the frames of clips as images, folded into the batch.

    Attributes:
        model: the other library's, without its classifier.
        grid: holds how many frames the last clips had, for deltas that look along time.
        sides: (H, W), the model's own inputs; it may take others.
        patch: (h, w) of a patch, of which H and W are multiples.
        frames: T of a video model's own inputs; None for an image model.
    """

    sides: tuple[int, int]
    patch: tuple[int, int] = (1, 1)
    frames: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid()
        self.model = self.create()
        layout_of(self.model)  # an unknown model is refused under its own name
        self._taken: set[tuple[int, ...]] = set()

    @staticmethod
    @abstractmethod
    def inputs_of(options: Mapping[str, Any]) -> Inputs | None:
        """Return how the model of a config's ``options`` wants its inputs; None where nothing says so."""

    @abstractmethod
    def create(self) -> nn.Module:
        """Return a new model, with random weights as its library draws them."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return one vector for each image of (B, 3, H, W), or of a video model each clip of (B, 3, T, H, W): (B, d).

        They are those of :attr:`model`.
        """

    def check(self, shape: tuple[int, ...]) -> None:
        """Check the shape of a batch, of images (B, 3, H, W) or clips (B, 3, T, H, W).

        Raises:
            UserError: when the model does not take it.
        """
        if self.frames is not None and len(shape) == 4:
            raise UserError(f'{self._name()} takes clips, and gets images; an image model takes both.')
        one = (1, *(shape[1:] if self.frames is not None else (shape[1], *shape[-2:])))
        if one in self._taken:
            return
        if why := self._refusal(one):
            own = '' if one[2:] == self.own else f', its own being {_product(self.own)}'
            options = 'img_size' if self.frames is None else 'img_size and frames'
            raise UserError(
                f'{self._name()} does not take inputs of {_product(one[2:])}{own}: {why}; '
                f'set model.backbone.{options}, or resize in the pipeline.'
            )
        self._taken.add(one)

    @property
    def own(self) -> tuple[int, ...]:
        """(H, W) of the model's own inputs, or (T, H, W)."""
        return self.sides if self.frames is None else (self.frames, *self.sides)

    def _name(self) -> str:
        return f'model.backbone ({type(self.model).__name__})'

    def _refusal(self, shape: tuple[int, ...]) -> str:
        """Say why the model does not take a shape, after one forward pass without memory; '' where it does."""
        if why := self._uneven(shape):
            return why
        own = self.model
        try:
            with on_meta(), torch.no_grad():
                self.model = self.create().eval()
                self.features(torch.empty(shape))
        except WRONG as error:
            return reason(error).rstrip('.')
        finally:
            self.model = own
        return ''

    def _uneven(self, shape: tuple[int, ...]) -> str:
        """Say so where patches would leave pixels over, which the libraries drop in silence; else ''."""
        uneven = any(side % patch for side, patch in zip(shape[-2:], self.patch, strict=True))
        return f'its patches are {_product(self.patch)}' if uneven else ''

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor]:
        """Return the features of images of (B, 3, H, W), ((B, d),), or of clips of (B, 3, T, H, W).

        Returns:
            Of clips (B, d, T, 1, 1), with T = 1 of a video model.

        Raises:
            UserError: when the model does not take inputs of this size.
        """
        if not torch.compiler.is_compiling():
            self.check(tuple(x.shape))
        if x.ndim == 4:
            self.grid.frames = None
            return (self.features(x),)
        if self.frames is not None:
            return over_time(self.features(x), 1)
        self.grid.frames = x.shape[2]
        return over_time(self.features(folded(x)), x.shape[2])

    def init_weights(self) -> None:
        """Draw the weights again as their library does."""
        self.model.load_state_dict(self.create().state_dict())


def _product(sizes: tuple[int, ...]) -> str:
    return ' x '.join(map(str, sizes))


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the two sides of a size that may be that of a square."""
    return (size, size) if isinstance(size, int) else tuple(size)
