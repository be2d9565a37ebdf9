"""mmengine's Runner where this project needs it stricter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..models.build import init_model
from .adapter import load_trained
from .console import quiet


class PETLRunner(Runner):
    """A Runner that initialises from the seed alone, loads strictly, and never leaves half a file."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """mmengine's logger, with the console for people and everything in the file."""
        return quiet(super().build_logger(*args, **kwargs), self.cfg.get('console') == 'errors')

    @property
    def plain_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    def _init_model_weights(self) -> None:
        init_model(self.plain_model, self.seed)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate with the total batch, gradient accumulation included.

        lr = base lr * (batch per GPU * GPUs * accumulated steps) / base batch.
        """
        if auto_scale_lr and auto_scale_lr.get('enable'):
            steps = getattr(optim_wrapper, '_accumulative_counts', 1)
            auto_scale_lr = dict(auto_scale_lr, base_batch_size=auto_scale_lr['base_batch_size'] / steps)
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap for distributed training; on the CPU, DDP takes no device ids."""
        if self.distributed and model_wrapper_cfg is None and not torch.cuda.is_available():
            model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        return super().wrap_model(model_wrapper_cfg, model)

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu', **_: Any) -> dict:
        """Load a run's full state, every key of it, without pickle."""
        checkpoint = load_trained(self.plain_model, filename)
        self._has_loaded = True
        self.logger.info(f'Resuming after epoch {checkpoint["meta"]["epoch"]} from {filename}')
        return checkpoint

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write beside and rename, so that a kill in the middle leaves no broken file."""
        partial = f'{filename}.partial'
        super().save_checkpoint(out_dir, partial, *args, **kwargs)
        os.replace(Path(out_dir, partial), Path(out_dir, filename))

    def prepare_test(self, checkpoint: str | Path) -> dict:
        """Initialise the model, base included, and load what was trained; mmengine's test would do neither.

        Returns:
            The checkpoint's content.
        """
        self._init_model_weights()
        self._has_loaded = True
        return load_trained(self.plain_model, checkpoint)
