"""Splits of data sets, and a seeded part of a training list that is held out to choose settings on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError, unknown


def check_split(dataset: str, split: str, splits: Sequence[str] = ('train', 'test')) -> str:
    """Return ``split``, or raise :class:`UserError` if ``dataset`` has no such split."""
    if split not in splits:
        raise unknown(f'split of {dataset}', split, splits)
    return split


def held_out_indices(count: int, fraction: float, seed: int | list[int]) -> set[int]:
    """Draw the indices of the samples to hold out: ``round(fraction * count)`` of ``count``, at least one.

    Published runs, and the lists of ``tools/prepare_data.py``, depend on this very draw.
    """
    order = np.random.default_rng(seed).permutation(count)
    return set(order[: max(1, round(fraction * count))].tolist())


class Holdout:
    """Mixin that keeps one of two parts of what a data set's ``load_data_list()`` returns.

    It comes before a data set of mmengine, mmaction2 or mmpretrain: ``class Mine(Holdout, VideoDataset)``. The two
    parts are disjoint, make up the whole list together, and keep its order.

    Args:
        args, kwargs: arguments of the data set.
        holdout: the share of the list that is held out, in [0, 1); at least one sample. Defaults to 0, the
            whole list.
        held_out: take the held-out part, to choose settings on, instead of the rest. Defaults to False.
        holdout_seed: seed of the draw. Defaults to 0.

    Raises:
        UserError: for a share outside [0, 1), or one that leaves no sample.
    """

    def __init__(
        self, *args: Any, holdout: float = 0.0, held_out: bool = False, holdout_seed: int = 0, **kwargs: Any
    ) -> None:
        if not 0 <= holdout < 1:
            raise UserError(f'holdout must be at least 0 and below 1, got {holdout!r}.')
        self.holdout, self.held_out, self.holdout_seed = holdout, held_out, holdout_seed
        super().__init__(*args, **kwargs)

    def filter_data(self) -> list[dict]:
        """Return the samples of the wanted part.

        mmengine calls this on the loaded list before it takes ``indices`` or serializes. Overriding
        ``load_data_list`` here would miss the data sets that define it themselves.
        """
        data = super().filter_data()
        if not self.holdout:
            return data
        out = held_out_indices(len(data), self.holdout, self.holdout_seed)
        part = [d for i, d in enumerate(data) if (i in out) == self.held_out]
        if not part:
            source = self.ann_file or self.data_root
            raise UserError(f'holdout={self.holdout} leaves nothing of the {len(data)} samples of {source}.')
        return part
