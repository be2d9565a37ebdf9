"""Averages of the trained parameters."""

from __future__ import annotations

from typing import Any

from mmengine import hooks as mmengine_hooks
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from ...errors import UserError, reason
from ...petl.checks import at_least_one
from ..optim import trained_part

HOW = 'it takes ema_type, momentum, begin_epoch or begin_iter, interval, and the arguments of its ema_type'


class EMAHook(mmengine_hooks.EMAHook):
    """mmengine's EMAHook, replaced under its name, over the trained parameters only.

    mmengine's copies the whole model, frozen backbone included, before it is initialised. Here the averages are what
    is validated and what adapter files, ``best_*.pth`` and the state_dict of ``epoch_*.pth`` hold; the last also has
    the weights that training continues with (``ema_state_dict``). Buffers, such as BatchNorm's statistics, are not
    averaged.

    Args:
        ema_type: ``'ExponentialMovingAverage'`` (the default), ``'MomentumAnnealingEMA'`` or
            ``'StochasticWeightAverage'``.
        begin_iter: the first step that is averaged; until then the averages are the weights. Defaults to 0.
        begin_epoch: the same in epochs. Defaults to 0.
        kwargs: of the ema_type: ``momentum=0.0002``, ``interval=1``, ...

    Raises:
        UserError: for a wrong argument.
    """

    # after AdapterHook (NORMAL), as it puts the averages into its file; before CheckpointHook (VERY_LOW)
    priority = 'BELOW_NORMAL'

    def __init__(
        self, ema_type: str = 'ExponentialMovingAverage', begin_iter: int = 0, begin_epoch: int = 0, **kwargs: Any
    ) -> None:
        if {'update_buffers', 'strict_load'} & set(kwargs):
            raise UserError(f'EMAHook averages no buffers and always loads strictly; {HOW}.')
        at_least_one('EMAHook is wrong: interval', kwargs.get('interval', 1))
        try:
            super().__init__(ema_type, strict_load=True, begin_iter=begin_iter, begin_epoch=begin_epoch, **kwargs)
            MODELS.build(self.ema_cfg, default_args=dict(model=nn.Module()))
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f'EMAHook is wrong: {reason(error, 300)}; {HOW}.') from error

    def before_run(self, runner: Runner) -> None:
        """Copy the trained parameters."""
        self.src_model = trained_part(runner.plain_model)
        self.ema_model = MODELS.build(self.ema_cfg, default_args=dict(model=self.src_model))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the averages into the state_dict; a checkpoint to resume from keeps the weights too."""
        super().before_save_checkpoint(runner, checkpoint)
        state = checkpoint['state_dict']
        state.update({key: state[key].cpu() for key in self.src_model.state_dict()})
        if 'optimizer' not in checkpoint:
            del checkpoint['ema_state_dict']

    def before_train(self, runner: Runner) -> None:
        """Start with the weights as averages; raise :class:`UserError` if it would begin after the last step."""
        try:
            super().before_train(runner)
        except AssertionError as error:
            raise UserError(f'EMAHook would never begin: {error}') from error
        if self.ema_model.steps == 0:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue with the averages, which must be those of the trained parameters, and with the weights."""
        if 'ema_state_dict' not in checkpoint:
            runner.logger.warning('The checkpoint to resume from has no averages; EMAHook starts them again.')
            return
        try:
            self._swap_ema_state_dict(checkpoint)
            self.ema_model.load_state_dict(checkpoint['ema_state_dict'])
        except (KeyError, RuntimeError) as error:
            raise UserError(f'The averages (EMAHook) of the checkpoint to resume from are broken: {error}') from error
        state = checkpoint['state_dict']
        self.src_model.load_state_dict({key: state[key] for key in self.src_model.state_dict()})
