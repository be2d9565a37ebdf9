"""Epochs of whole optimizer steps, where gradients are accumulated."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import BatchSampler, Sampler


class WholeStepsBatchSampler(BatchSampler):
    """Full batches, as many as make whole optimizer steps; what is left of an epoch is left out.

    mmengine would carry the gradients of an unfinished step over to the next epoch, and lose them where a run is
    resumed. Left out is also what as many GPUs as steps are accumulated would leave out.

    Args:
        sampler: of indices.
        batch_size: samples in a batch.
        steps: batches whose gradients make one optimizer step.
    """

    def __init__(self, sampler: Sampler, batch_size: int, steps: int) -> None:
        super().__init__(sampler, batch_size, drop_last=True)
        self.steps = steps

    def __len__(self) -> int:
        """Batches in an epoch, a multiple of ``steps``."""
        return super().__len__() // self.steps * self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of ``batch_size`` indices."""
        return islice(super().__iter__(), len(self))
