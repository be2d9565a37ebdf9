"""AdaptMLP: AdaptFormer's bottleneck, parallel to the MLP or after it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from .addition import Addition
from .checks import ACTIVATIONS, at_least_one, number, one_of
from .delta import Delta, Site
from .drop_path import DropBranch, at_rates


class AdaptMLP(Delta):
    """AdaptFormer's adapter (V-PETL, Eq. 6 and 7), hosted on a block's MLP::

        parallel:    y + s up(relu(down(x)))     # Eq. 6, 7
        sequential:  y + s up(relu(down(y)))     # y is the MLP's branch, before the residual

    Parameters: 2 d r + r + d. down is drawn Kaiming-uniform (a = sqrt 5), up and both biases start at zero, so that
    step 0 is the plain backbone.

    Where the MLP adds the residual and applies drop-path itself (mmcv's FFN, in mmpretrain's ViT and 2D Swin), the
    adapter lies outside drop-path; on Video Swin and VideoMAE it lies inside.

    Args:
        dim: the width d of the tokens.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 64.
        scale: the strength s. Defaults to 0.1.
        learn_scale: also train s, or with ``'channel'`` one for each channel. Defaults to False.
        mode: ``'parallel'`` (default) or ``'sequential'``.
        source: what a parallel adapter reads: ``'norm'`` (default), the MLP's input; ``'residual'``, the residual
            stream before the norm, with the result added outside drop-path, as in AdaptFormer's published ViT. A
            sequential adapter ignores it.
        dropout: on the bottleneck, in training. Defaults to 0.
        act: ``'ReLU'`` (default); ``'GELU'``, as AIM has it, ``'GELUTanh'`` or ``'QuickGELU'``.
        drop_path: how likely a row of the batch goes without the adapter, in training, in the last block; less,
            evenly, in earlier ones. Defaults to 0.

    Raises:
        UserError: for an invalid value.
    """

    places = ('mlp',)

    def __init__(
        self,
        dim: int,
        *,
        d_bottle: int = 64,
        scale: float = 0.1,
        learn_scale: bool | str = False,
        mode: str = 'parallel',
        source: str = 'norm',
        dropout: float = 0.0,
        act: str = 'ReLU',
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_bottle = at_least_one('d_bottle', d_bottle)
        one_of('AdaptMLP mode', mode, ('parallel', 'sequential'))
        one_of('AdaptMLP source', source, ('norm', 'residual'))
        parallel = 'stream' if source == 'residual' else 'input'
        self.reads = 'output' if mode == 'sequential' else parallel
        self.down = nn.Linear(dim, d_bottle)
        self.act = ACTIVATIONS[one_of('AdaptMLP act', act, tuple(ACTIVATIONS))]()
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.up = nn.Linear(d_bottle, dim)
        self.drop = DropBranch(number('drop_path', drop_path, 0, 1))
        self._set_scale(scale, learn_scale, dim)
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta per block, whose drop-path grows with the depth."""
        return at_rates(cls, sites, options)

    def reset_parameters(self) -> None:
        """Draw down again and set the rest to zero."""
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)
        self._reset_scale()

    def forward(self, x: Tensor) -> Addition | Tensor:
        """Return what is added to the MLP's output (Eq. 6).

        Args:
            x: what the adapter reads, (..., d).
        """
        h = self.dropout(self.act(self.down(x)))
        added = Addition(h, self.up.weight, self.up.bias, self.scale)
        return self.drop(added.value()) if self.drop.p and self.training else added
