"""Progress of a series of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ProgressHook(Hook):
    """Calls ``advance(clips)`` after each batch of training and testing.

    Args:
        advance: takes the number of samples that are done.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count a batch."""
        self.advance(len(data_batch['data_samples']))

    after_test_iter = after_train_iter
