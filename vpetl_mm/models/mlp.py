"""The hosts' MLPs, whose hidden layer is one call in inference."""

from __future__ import annotations

from mmaction.models.backbones.swin import Mlp
from mmengine.model import Sequential
from torch import Tensor

from ..petl import activated


class FastMlp(Mlp):
    """mmaction2's MLP (Video Swin)."""

    def forward(self, x: Tensor) -> Tensor:
        """The MLP, (..., d) to (..., d)."""
        return self.drop(self.fc2(self.drop(activated(self.fc1, self.act, x))))


class FastHidden(Sequential):
    """The first part of mmcv's FFN (ViT, VideoMAE, 2D Swin): linear layer, activation, dropout."""

    def forward(self, x: Tensor) -> Tensor:
        """The hidden layer, (..., d) to (..., d_hidden)."""
        fc1, act, dropout = self
        return dropout(activated(fc1, act, x))
