"""End a run whose loss or weights are no longer finite."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import UserError


class FiniteLossHook(Hook):
    """Checks the loss at intervals, and what was trained before each checkpoint, as the last step may spoil it.

    Args:
        interval: steps between two checks, each of which waits for the GPU. Defaults to 50.

    Raises:
        UserError: when the loss, a trained parameter or a buffer is infinite or NaN; that checkpoint is not written.
    """

    priority = 'HIGH'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Check every ``interval`` steps and at the end of an epoch."""
        due = self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)
        if (due or self.end_of_epoch(runner.train_dataloader, batch_idx)) and not torch.isfinite(outputs['loss']):
            raise UserError(
                f'The loss is {outputs["loss"].item()} in epoch {runner.epoch + 1}; try a lower learning rate '
                '(optim_wrapper.optimizer.lr). The last good state is the epoch before.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save what is not finite."""
        model = runner.plain_model
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        wrong = [n for n, t in [*trained, *model.named_buffers()] if not torch.isfinite(t).all()]
        if wrong:
            raise UserError(
                f'{len(wrong)} trained tensors are not finite, {wrong[0]} among them, and are not saved; try a lower '
                'learning rate (optim_wrapper.optimizer.lr). The last good state is the checkpoint before.'
            )
