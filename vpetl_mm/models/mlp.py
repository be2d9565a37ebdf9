"""The hosts' MLPs, whose hidden layer is one call in inference."""

from __future__ import annotations

import torch
from mmaction.models.backbones.swin import Mlp
from mmengine.model import Sequential
from torch import Tensor, nn

from ..petl import FastLinear
from .gelu import GELU8Bit


class FastMlp(Mlp):
    """mmaction2's MLP (Video Swin); its GELU takes no memory of its own in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """The MLP, (..., d) to (..., d)."""
        return self.drop(self.fc2(self.drop(_hidden(self.fc1, self.act, x))))


class FastHidden(Sequential):
    """The first part of mmcv's FFN (ViT, VideoMAE, 2D Swin): linear layer, activation, dropout."""

    def forward(self, x: Tensor) -> Tensor:
        """The hidden layer, (..., d) to (..., d_hidden)."""
        fc1, act, dropout = self
        return dropout(_hidden(fc1, act, x))


def _hidden(fc1: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """act(fc1(x)); in one call where no gradient, no delta and no hook asks for what lies between."""
    apart = (
        type(fc1) is not FastLinear
        or type(act) not in (nn.GELU, GELU8Bit)
        or act.approximate != 'none'
        or fc1._forward_hooks
        or fc1._forward_pre_hooks
        or act._forward_hooks
        or act._forward_pre_hooks
        or (torch.is_grad_enabled() and x.requires_grad)
    )
    return act(fc1(x)) if apart or not fc1.is_faster(x) else fc1.infer(x, gelu=True)
