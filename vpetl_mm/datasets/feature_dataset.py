"""A data set's samples with their features in the place of images or clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class FeatureDataset(Dataset):
    """Cached samples, ``dict(features=Tensor, data_samples=...)`` each.

    Args:
        views: the features [N, ...] of each view.
        samples: what the pipeline packed beside the image or clip, N of them.
    """

    def __init__(self, views: Sequence[Tensor], samples: Sequence[Any]) -> None:
        self.views, self.samples, self.view = list(views), list(samples), 0

    def __len__(self) -> int:
        """Samples, views not counted."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample as the view in turn, ``view``, shows it."""
        return dict(features=self.views[self.view][index], data_samples=self.samples[index])
