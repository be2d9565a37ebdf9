"""Small checkpoints, to keep and to share."""

from __future__ import annotations

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ..adapter import FORMAT, adapter_state, trained_meta
from ..checkpoint import as_plain
from ..record import json_safe


class AdapterHook(Hook):
    """Turns every checkpoint saved without an optimizer into an adapter file, and writes one at the end.

    mmengine's CheckpointHook saves ``epoch_*.pth`` with the optimizer, for resuming, and ``best_*.pth`` without.
    The latter, and this hook's ``adapter_epoch_N.pth``, hold only what was trained, the head and changed buffers.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the settings and the base, and strip a checkpoint that is not for resuming."""
        model = runner.plain_model
        options = json_safe(runner.cfg.get('given_options', {}))
        # a new dict: mmengine writes several checkpoints with the same
        checkpoint['meta'] = as_plain(dict(checkpoint['meta'], **trained_meta(model), options=options))
        if 'optimizer' in checkpoint:
            checkpoint['message_hub'] = as_plain(checkpoint['message_hub'])
            return
        checkpoint.pop('message_hub', None)
        checkpoint['state_dict'] = adapter_state(model)
        checkpoint['meta']['adapter_format'] = FORMAT

    def before_train(self, runner: Runner) -> None:
        """Warn if the best epoch is chosen on so few samples that each is worth more than two points."""
        chosen = any(isinstance(h, CheckpointHook) and h.save_best for h in runner.hooks)
        count = len(runner.val_loop.dataloader.dataset) if chosen and runner.val_loop is not None else 50
        if count < 50:
            runner.logger.warning(
                f'The best epoch is chosen on {count} validation samples, each {100 / count:.1f} points of top-1: '
                'it may be best by chance. Hold out more (holdout.fraction), or use the last epoch.'
            )

    def after_train(self, runner: Runner) -> None:
        """Write ``adapter_epoch_N.pth``."""
        name = f'adapter_epoch_{runner.epoch}.pth'
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(runner.work_dir, name, save_optimizer=False, save_param_scheduler=False, meta=meta)
        runner.logger.info(f'Trained weights: {runner.work_dir}/{name}')
