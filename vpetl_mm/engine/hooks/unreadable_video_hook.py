"""Videos that cannot be decoded: named, counted, and limited to a share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import UserError


class UnreadableVideoHook(Hook):
    """Collects what ``PETLVideoDataset`` skipped.

    Args:
        max_share: the share of an epoch's videos above which training ends. Defaults to 0.01. In testing an
            unreadable video counts as wrong instead.

    Raises:
        UserError: when more are unreadable in one epoch of training.
    """

    def __init__(self, max_share: float = 0.01) -> None:
        if not 0 <= max_share <= 1:
            raise UserError(f'max_share of UnreadableVideoHook must be a share from 0 to 1, got {max_share!r}.')
        self.max_share = max_share
        self._all: dict[str, None] = {}
        self._in_epoch = 0

    def before_train_epoch(self, runner: Runner) -> None:
        """Count from zero in each epoch."""
        self._in_epoch = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log what this batch skipped, and end the run if it is too much."""
        self._in_epoch += self._collect(runner, (data_batch or {}).get('data_samples', ()))
        videos = len(runner.train_dataloader.dataset)
        if self._in_epoch > self.max_share * videos:
            raise UserError(
                f'{self._in_epoch} of the {videos} videos of this epoch cannot be decoded, more than '
                f'{self.max_share:.0%}; the first is {next(iter(self._all))}. The log file names them all.'
            )

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log what this batch could not read."""
        self._collect(runner, outputs or ())

    after_test_iter = after_val_iter

    def after_run(self, runner: Runner) -> None:
        """Report all of them."""
        if self._all:
            runner.logger.warning(
                f'{len(self._all)} videos could not be decoded: {", ".join(list(self._all)[:5])} ...'
            )

    after_test = after_run

    def _collect(self, runner: Runner, samples: Iterable[Any]) -> int:
        skipped = [path for s in samples for path in s.metainfo.get('skipped', ())]
        count = torch.tensor(len(skipped), device=get_device())
        all_reduce(count)  # every rank counts every video, so that all stop together
        if not count:
            return 0
        skipped = [path for part in all_gather_object(skipped) for path in part]
        for path in skipped:
            if path not in self._all:
                runner.logger.warning(f'cannot be decoded, skipped: {path}')
                self._all[path] = None
        return len(skipped)
