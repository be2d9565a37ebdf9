"""mmengine's Runner, resumed from a full state that is checked first and trusted for nothing else."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, barrier
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..errors import UserError
from ..files import written_whole
from .adapter import load_trained
from .full_state import check_optimizer, check_schedulers
from .run_folder import BEST


class ResumingRunner(Runner):
    """A Runner whose resumed run ends like one that was never interrupted."""

    @property
    def plain_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

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
