"""mmengine's Runner for models of this project: built from the seed alone, saved whole, resumed with care."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, master_only
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import UserError
from ..files import written_whole
from ..models.build import init_model
from .adapter import load_trained
from .checkpoint import Checkpoint
from .compiled import compile_backbone
from .console import quiet
from .full_state import check_optimizer, check_schedulers
from .run_folder import BEST
from .schedules import fitted


class PETLRunner(Runner):
    """A Runner that initialises from the seed alone, loads strictly, and never leaves half a file.

    A resumed run ends like one that was never interrupted.

    Attributes:
        initial: tensors of the model that a new run starts from instead of its own draw; None for none.
    """

    initial: dict[str, Tensor] | None = None

    @property
    def plain_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger; the console shows what people need, the file everything."""
        return quiet(super().build_logger(*args, **kwargs), self.cfg.get('console') == 'errors')

    def _init_model_weights(self) -> None:
        init_model(self.plain_model, self.seed)
        if self.initial is not None:
            self.plain_model.load_state_dict(self.initial, strict=False)

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

    def dump_config(self) -> None:
        """Write the config into the work dir, unless it was made of a bundle."""
        if not self.cfg.get('bundle'):
            super().dump_config()

    def start_from(self, file: Path, state: dict[str, Tensor]) -> None:
        """Start a new run from tensors of ``file`` instead of the model's own draw.

        Raises:
            UserError: when the ranks have read different files.
        """
        digest = self.cfg.given_options.get('init_from.sha256')
        if len({*all_gather_object(digest)}) > 1:
            raise UserError(f'The ranks would start from different files, all called {file}: give them the same one.')
        self.initial = state

    def prepare_test(self, checkpoint: Checkpoint) -> None:
        """Initialise the model, base included, and load a checkpoint; mmengine's test does neither."""
        self._init_model_weights()
        self._has_loaded = True
        load_trained(self.plain_model, checkpoint.file, checkpoint.content, checkpoint.check_base)

    def load_or_resume(self) -> None:
        """Resume if asked to, and first remove what a killed run left half-written.

        Testing calls this too, perhaps while a run is writing.
        """
        if self.rank == 0 and self._train_loop is not None:
            for partial in Path(self.work_dir).glob('*.pth.partial'):
                partial.unlink(missing_ok=True)
        super().load_or_resume()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue from a full state; ``resume_with='new'`` takes the config's schedule and optimizer settings."""
        new = self.cfg.get('resume_with') == 'new'
        settings = [{k: v for k, v in group.items() if k != 'params'} for group in self.optim_wrapper.param_groups]
        super().resume(filename, *args, resume_param_scheduler=not new, **kwargs)
        if new:
            self._go_to(self.epoch, settings)
        if self.rank == 0:  # a kill may have come between the checkpoint and this file of mmengine's
            with written_whole(Path(self.work_dir, 'last_checkpoint')) as partial:
                partial.write_text(filename)

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu', **_: Any) -> dict:
        """Load every key of a full state, without pickle; nothing in it is run, or used as a file's name.

        Raises:
            UserError: when it is broken, of another config, base or optimizer, or differs between ranks.
        """
        checkpoint = load_trained(self.plain_model, filename)
        meta, hub = checkpoint['meta'], checkpoint['message_hub']
        _check_same_on_every_rank(filename, meta)
        check_optimizer(filename, checkpoint['optimizer'], self.optim_wrapper.optimizer)
        check_schedulers(filename, checkpoint.get('param_schedulers') or [], self.param_schedulers or [])
        self._check_steps(filename, meta)
        if self.cfg.get('resume_with') == 'new' and self._randomness_cfg.get('seed') is not None:
            meta.pop('seed', None)  # mmengine would take it instead of the config's
        info = hub['runtime_info']
        for key in ('last_ckpt', 'cfg', 'experiment_name'):
            info.pop(key, None)
        kept = info.get('keep_ckpt_ids')
        if not (isinstance(kept, list) and all(type(n) is int and 0 < n <= meta['epoch'] for n in kept)):
            info.pop('keep_ckpt_ids', None)  # CheckpointHook deletes these
        self._take_best(info, Path(filename).parent, meta['epoch'])
        hub['resumed_keys'] = dict.fromkeys([*info, *hub['log_scalars']], True)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._has_loaded = True
        self.logger.info(f'Resuming after epoch {meta["epoch"]} from {filename}')
        return checkpoint

    def _check_steps(self, filename: str, meta: dict[str, Any]) -> None:
        """Raise :class:`UserError` if an epoch has another number of iterations than in the full state."""
        steps = len(self.train_dataloader)
        if meta['iter'] != meta['epoch'] * steps and self.cfg.get('resume_with') != 'new':
            raise UserError(
                f'{filename} was written after {meta["iter"]:,} iterations, but {meta["epoch"]} epochs are '
                f'{meta["epoch"] * steps:,} here: the data, the batch or the number of processes has changed. '
                '--resume-with new continues with them, and with the schedule that fits.'
            )

    def _take_best(self, info: dict[str, Any], folder: Path, epoch: int) -> None:
        """Copy the best checkpoint so far into this run's folder; without it, the search for the best starts again.

        mmengine deletes what ``info`` names once there is a better one, so it must be a file of this folder.
        """
        scores = {key: info.pop(key) for key in list(info) if key.startswith('best_score')}
        named = {key: Path(str(info.pop(key))).name for key in list(info) if key.startswith('best_ckpt')}
        for key, name in named.items():
            score, number = key.replace('ckpt', 'score', 1), BEST.fullmatch(name)
            own, best = Path(self.work_dir, name), folder / name
            known = number and int(number[1]) <= epoch and isinstance(scores.get(score), Real)
            there = bool(known) and (own.is_file() or best.is_file())
            barrier()  # every rank has looked before one copies
            if there and self.rank == 0 and not own.is_file():
                with written_whole(own) as partial:
                    shutil.copyfile(best, partial)
            if there:
                info.update({key: str(own), score: scores[score]})

    def _go_to(self, epoch: int, settings: list[dict[str, Any]]) -> None:
        """Put iteration, schedulers and optimizer where a run of this config is after ``epoch`` epochs."""
        steps = len(self.train_dataloader)
        self.train_loop._iter = epoch * steps  # mmengine has no setter, and sets it so itself
        for group, values in zip(self.optim_wrapper.param_groups, settings, strict=True):
            group.update(values)
        schedulers = self.param_schedulers or []
        if any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
            raise UserError('A schedule that follows validation scores cannot be resumed with other settings.')
        with warnings.catch_warnings(action='ignore'):  # that no step of the optimizer comes between them
            for _ in range(epoch):
                for by_epoch in [False] * steps + [True]:
                    for scheduler in schedulers:
                        if scheduler.by_epoch is by_epoch:
                            scheduler.step()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call every hook; a resumed run first catches up on a validation that was interrupted."""
        if fn_name == 'after_val_epoch':
            self.message_hub.update_info('last_validated_epoch', self.epoch)
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train' and self._resume:
            self._validate_resumed()

    def _validate_resumed(self) -> None:
        """Validate the epoch of the full state, unless that was written after its validation."""
        loop = self.train_loop
        due = self.val_loop is not None and self.epoch >= loop.val_begin
        due = due and (self.epoch % loop.val_interval == 0 or self.epoch == loop.max_epochs)
        if not due or self.message_hub.runtime_info.get('last_validated_epoch') == self.epoch:
            return
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook):
                hook.last_ckpt = self._load_from  # so that a new best score goes into it
        self.val_loop.run()


def _check_same_on_every_rank(filename: str, meta: dict[str, Any]) -> None:
    """Raise :class:`UserError` if the ranks are about to continue different full states."""
    mine = f'{Path(filename).name} of {meta.get("time")} after epoch {meta["epoch"]}'
    found = all_gather_object(mine)
    other = next((rank for rank, text in enumerate(found) if text != found[0]), None)
    if other is not None:
        raise UserError(
            f'The ranks would resume from different checkpoints: rank 0 from {found[0]}, rank {other} from '
            f'{found[other]}; the work dir must be the same folder for all of them.'
        )


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
