"""Ends a run whose loss is no longer a number."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import UserError


class FiniteLossHook(Hook):
    """Looks at the loss now and then, before a checkpoint could be written.

    Args:
        interval: steps between two looks, each of which waits for the GPU. Defaults to 50.

    Raises:
        UserError: when the loss is infinite or NaN.
    """

    priority = 'HIGH'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look every ``interval`` steps and at an epoch's end."""
        due = self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)
        if (due or self.end_of_epoch(runner.train_dataloader, batch_idx)) and not torch.isfinite(outputs['loss']):
            raise UserError(
                f'The loss is {outputs["loss"].item()} in epoch {runner.epoch + 1}; try a lower learning rate '
                '(optim_wrapper.optimizer.lr). The last good state is the epoch before.'
            )
