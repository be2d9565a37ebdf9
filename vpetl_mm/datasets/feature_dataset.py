"""A data set's samples with their features in the place of images or clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class FeatureDataset(Dataset):
    """Cached samples, ``dict(features=Tensor, data_samples=...)`` each.

    Args:
        views: of each view the features [N, ...] and what the pipeline packed beside the image or clip, N of
            them; a video that cannot be read is replaced by another, of another label, in each view.
    """

    def __init__(self, views: Iterable[tuple[Tensor, Sequence[Any]]]) -> None:
        self.views, self.view = list(views), 0

    def __len__(self) -> int:
        """Samples, views not counted."""
        return len(self.views[0][1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample as the view in turn, ``view``, shows it."""
        features, samples = self.views[self.view]
        return dict(features=features[index], data_samples=samples[index])
