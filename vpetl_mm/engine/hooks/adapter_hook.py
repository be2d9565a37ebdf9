"""Small files for keeping and sharing."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..adapter import FORMAT, adapter_state, trained_meta
from ..plain import plain
from ..record import json_safe


class AdapterHook(Hook):
    """Turns every checkpoint saved without an optimizer into an adapter file, and writes one at the end.

    mmengine's CheckpointHook saves ``epoch_*.pth`` with the optimizer, for resuming, and ``best_*.pth``
    without: the latter, and ``adapter_epoch_N.pth`` from here, hold what was trained, the head and changed
    buffers alone.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the settings and the base, and strip a checkpoint that is not for resuming."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        options = json_safe(runner.cfg.get('given_options', {}))
        # a dict of its own: mmengine writes several checkpoints with one
        checkpoint['meta'] = plain(dict(checkpoint['meta'], **trained_meta(model), options=options))
        if 'optimizer' in checkpoint:
            checkpoint['message_hub'] = plain(checkpoint['message_hub'])
            return
        checkpoint.pop('message_hub', None)
        checkpoint['state_dict'] = adapter_state(model)
        checkpoint['meta']['adapter_format'] = FORMAT

    def after_train(self, runner: Runner) -> None:
        """Write ``adapter_epoch_N.pth``."""
        name = f'adapter_epoch_{runner.epoch}.pth'
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(runner.work_dir, name, save_optimizer=False, save_param_scheduler=False, meta=meta)
        runner.logger.info(f'Trained weights: {runner.work_dir}/{name}')
