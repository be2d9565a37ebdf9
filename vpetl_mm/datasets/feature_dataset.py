"""A data set's samples with their features instead of images or clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class FeatureDataset(Dataset):
    """Cached samples, ``dict(features=Tensor, data_samples=...)`` each.

    Args:
        views: per view, the features [N, ...] and the N data samples that the pipeline packed beside the image or
            clip. They differ between views where an unreadable video was replaced by others.
    """

    def __init__(self, views: Iterable[tuple[Tensor, Sequence[Any]]]) -> None:
        self.views, self.view = list(views), 0

    def __len__(self) -> int:
        """Return the number of samples, each counted once for all views."""
        return len(self.views[0][1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the sample in the current view, ``view``."""
        features, samples = self.views[self.view]
        return dict(features=features[index], data_samples=samples[index])
