"""Cached features, instead of images or clips."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn


class Features(NamedTuple):
    """The output of a frozen backbone for a batch.

    Args:
        values: (B, d), or (B, d, T, 1, 1) of a video backbone, averaged over each frame's positions.
    """

    values: Tensor


def pooled(features: Any) -> Tensor:
    """Return the last stage's features, averaged over positions, (B, d) or (B, d, T, 1, 1)."""
    last = features[-1] if isinstance(features, (tuple, list)) else features
    return last.float().mean((3, 4), keepdim=True) if last.ndim == 5 else last


def extracted(model: nn.Module, inputs: Any) -> Tensor:
    """Return the pooled features of a batch's inputs, float32, before the head."""
    found = model.extract_feat(inputs)
    return pooled(found[0] if isinstance(found[-1], dict) else found).float()


class FeaturePreprocessor(BaseDataPreprocessor):
    """Batches features as they are, and passes everything else to the model's own preprocessor.

    Args:
        own: the model's own.
    """

    def __init__(self, own: BaseDataPreprocessor) -> None:
        super().__init__()
        self.own = own

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``dict(inputs=..., data_samples=[...])`` on the model's device."""
        if 'features' not in data:
            return self.own(data, training)
        data = self.cast_data(data)
        return dict(inputs=Features(torch.stack(data['features'])), data_samples=data['data_samples'])
