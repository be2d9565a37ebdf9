"""A training run as it is before its first step, for looking at; nothing of it stays on the disk."""

from __future__ import annotations

import copy
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import Config
from mmengine.runner import turn_on_activation_checkpointing

from ..models.build import init_model
from .building import naming
from .experiment import for_training, runner_of
from .failures import told_plainly
from .runner import PETLRunner

# of a run, what would write, send, or wait for later epochs
LEFT_OUT = ('custom_hooks', 'default_hooks', 'param_scheduler', 'visualizer', 'load_from')
LEFT_OUT += tuple(f'{kind}_{part}' for kind in ('val', 'test') for part in ('dataloader', 'cfg', 'evaluator'))


@contextmanager
def rehearsed(cfg: Config, gpus: int = 1) -> Iterator[PETLRunner]:
    """Yield a run's runner with its data, model, weights and optimizer, before the first step.

    The learning rate is scaled as the run scales it, without its warm-up. Every batch makes an optimizer step, and
    the backbone is not compiled. Its files go to a folder that is removed at the end, its warnings to stderr.

    Args:
        cfg: the experiment, prepared and checked.
        gpus: how many the run will have, each with a batch of its own; the learning rate follows. Defaults to 1.
    """
    cfg = for_training(copy.deepcopy(cfg))
    steps = cfg.optim_wrapper.pop('accumulative_counts', 1)
    scaling = dict(cfg.get('auto_scale_lr') or {})
    if scaling.get('enable'):
        scaling['base_batch_size'] /= steps * gpus
    cfg.update(dict.fromkeys(LEFT_OUT), compile_backbone=False, resume=False)
    cfg.experiment_name = f'rehearsal_{time.monotonic_ns()}'
    with tempfile.TemporaryDirectory() as folder, told_plainly(resumes=False):
        cfg.work_dir = folder
        runner = runner_of(cfg, cfg.train_dataloader.num_workers)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
                handler.setStream(sys.stderr)
        with naming(cfg, 'what the run is built from'):
            runner.train_loop  # noqa: B018, builds the data loader
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            runner.scale_lr(runner.optim_wrapper, scaling)
            init_model(runner.plain_model, runner.seed)
            if cfg.get('activation_checkpointing'):
                turn_on_activation_checkpointing(runner.plain_model, cfg.activation_checkpointing)
        yield runner
