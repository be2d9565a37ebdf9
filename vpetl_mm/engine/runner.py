"""mmengine's Runner for models of this project: built from the seed alone, saved whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from torch import nn

from ..errors import UserError
from ..files import written_whole
from ..models.build import init_model
from .adapter import load_trained
from .compiled import compile_backbone
from .console import quiet
from .resuming_runner import ResumingRunner
from .schedules import fitted


class PETLRunner(ResumingRunner):
    """A Runner that initialises from the seed alone, loads strictly, and never leaves half a file."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger; the console shows what people need, the file everything."""
        return quiet(super().build_logger(*args, **kwargs), self.cfg.get('console') == 'errors')

    def _init_model_weights(self) -> None:
        init_model(self.plain_model, self.seed)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Compile the backbone if asked to; wrap for distributed training (on the CPU, DDP takes no device ids)."""
        if self.distributed and model_wrapper_cfg is None and not torch.cuda.is_available():
            model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        compile_backbone(model, self.cfg.get('compile_backbone', False))
        return super().wrap_model(model_wrapper_cfg, model)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate with the total batch, gradient accumulation included.

        lr = base lr * (batch per GPU * GPUs * accumulated steps) / base batch.
        """
        if auto_scale_lr and auto_scale_lr.get('enable'):
            steps = getattr(optim_wrapper, '_accumulative_counts', 1)
            auto_scale_lr = dict(auto_scale_lr, base_batch_size=auto_scale_lr['base_batch_size'] / steps)
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build mmengine's schedulers, corrected for epochs of any number of iterations."""
        return super().build_param_scheduler(fitted(scheduler, len(self.train_dataloader), self.max_epochs))

    @master_only
    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, meta: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Write to another name, flush and rename, so that neither a kill nor a power cut leaves a broken file.

        Raises:
            UserError: when it cannot be written, such as to a full disk; what was there before stays.
        """
        final = Path(out_dir, filename)
        # a copy: CheckpointHook saves the best and then the full state with the same dict
        meta = dict(meta or {}, processes=self.world_size)
        try:
            with written_whole(final) as partial:
                super().save_checkpoint(out_dir, partial.name, *args, meta=meta, **kwargs)
                _flush(partial)
            _flush(final.parent)
        except OSError as error:
            raise UserError(f'The checkpoint {final} cannot be written ({error}).') from error

    def prepare_test(self, file: str | Path, checkpoint: dict[str, Any]) -> None:
        """Initialise the model, base included, and load the content of a checkpoint; mmengine's test does neither."""
        self._init_model_weights()
        self._has_loaded = True
        load_trained(self.plain_model, file, checkpoint)


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
