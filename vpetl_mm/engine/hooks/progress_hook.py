"""Progress of a whole series of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ProgressHook(Hook):
    """Calls ``advance(clips)`` after each batch of training and testing.

    Args:
        advance: takes the number of samples that are done with.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """A batch was trained on."""
        self.advance(len(data_batch['data_samples']))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """A batch was tested."""
        self.advance(len(data_batch['data_samples']))
