"""A trial as an ordinary run: trained on a part of the training list, validated on the rest after every epoch."""

from __future__ import annotations

import math
import os
import subprocess
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from optuna.trial import FrozenTrial, TrialState

from ..engine.experiment import train
from ..engine.failures import FULL
from ..engine.record import Record, read_record, write_record
from ..engine.runner import PETLRunner
from ..engine.sensitivity_command import SPT_FILE, sensitivity_command
from ..errors import UserError, reason, shortened
from ..measure.count import trains_by_budget
from .settings import Search, config_of
from .study import ACCURACIES, PERCENT, REASON, SCORES, STARTS, ActiveTrial, whole

RESULT = 'result_holdout.json'


class ReportHook(Hook):
    """Keeps the scores of each validation, tells Optuna of them, and ends a run that Optuna prunes.

    Args:
        metric: the score that counts.
        trial: Optuna's; None for a run that is not pruned.

    Attributes:
        scores: of the last validation, by name.
        pruned: whether Optuna has ended the run.

    Raises:
        UserError: when the validation does not report the metric, or it is not finite.
    """

    priority = 'NORMAL'  # before the checkpoint that says that this epoch has been validated

    def __init__(self, metric: str, trial: optuna.Trial | None = None) -> None:
        self.metric, self.trial = metric, trial
        self.scores: dict[str, Any] = dict(trial.user_attrs.get(SCORES, {})) if trial else {}
        self.reported = {*_intermediate(trial)} if trial else set()
        self.pruned = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Take the scores of an epoch."""
        self.scores = {'epoch': runner.epoch, **(metrics or {}), 'samples': len(runner.val_dataloader.dataset)}
        if self.metric not in self.scores:
            raise UserError(f'The validation reports no {self.metric}; it reports {", ".join(metrics or {})}.')
        if not math.isfinite(self.scores[self.metric]):
            raise UserError(f'{self.metric} is {self.scores[self.metric]} after epoch {runner.epoch}.')
        if self.trial is None:
            return
        self.trial.set_user_attr(SCORES, self.scores)
        if runner.epoch not in self.reported:
            self.trial.report(self.scores[self.metric], runner.epoch)
        if runner.epoch < runner.max_epochs and self.trial.should_prune():
            self.pruned = True
            runner.train_loop.stop_training = True


def _intermediate(trial: optuna.Trial) -> dict[int, float]:
    frozen = next(t for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)
    return frozen.intermediate_values


def carry_out(search: Search, taken: ActiveTrial) -> None:
    """Run a trial to its end, and tell Optuna its value, that it was pruned, or why it failed.

    The value is that of the last epoch.

    Raises:
        OSError, UserError: when the disk is full.
    """
    trial, study = taken.trial, taken.study
    print(f'trial {trial.number}: {", ".join(f"{k}={v}" for k, v in taken.chosen.items())}', flush=True)
    hook = ReportHook(search.metric, trial)
    try:
        score(search, taken.folder, taken.chosen, hook)
    except Exception as error:
        if disk_is_full(error):  # which is no fault of the settings: the same command goes on with this trial
            with suppress(OSError):
                trial.set_user_attr(STARTS, 0)
            raise
        why = why_failed(error)
        trial.set_user_attr(REASON, why)
        study.tell(trial, state=TrialState.FAIL)
        said = f'failed: {why}'
    else:
        value = hook.scores[search.metric]
        study.tell(trial, *([None, TrialState.PRUNED] if hook.pruned else [value]))
        said = f'{"pruned: " * hook.pruned}{value:.2f}'
    tidy(taken.folder)
    print(f'trial {trial.number} {said}', flush=True)


def why_failed(error: Exception) -> str:
    """Return why a trial failed, on a line; the log has the rest."""
    if isinstance(error, UserError):
        return shortened(error, 300)
    traceback.print_exc()
    return shortened(f'{type(error).__name__}: {reason(error)}', 300)


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error comes of a disk that is full or cannot be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def score(search: Search, folder: Path, chosen: dict[str, Any], hook: ReportHook, seed: int | None = None) -> None:
    """Train a run on held-out data, or go on with it, and leave its result.

    Args:
        search: the search.
        folder: the run's work dir.
        chosen: the settings under trial.
        hook: keeps its scores.
        seed: the run's. Defaults to None, the config's own.

    Raises:
        UserError: as :func:`~vpetl_mm.engine.experiment.train`.
    """
    cfg = measured(search.run(folder, chosen, seed))
    cfg.experiment_name = f'{search.name}_{folder.name}_{time.monotonic_ns()}'
    cfg.console = 'errors'
    runner = train(cfg, hooks=[hook])
    hook.scores = hook.scores or _scores_before(runner)
    if not hook.pruned:
        _leave_result(search, runner, hook.scores)


def tidy(folder: Path) -> None:
    """Remove the full states of a run that is over: they are large, and never resumed."""
    for state in folder.glob('epoch_[0-9]*.pth'):
        state.unlink()


def _scores_before(runner: PETLRunner) -> dict[str, Any]:
    """Return the scores of a run that had been validated to its end when it was killed."""
    logged = runner.message_hub.log_scalars.items()
    scores = {name.removeprefix('val/'): value.current() for name, value in logged if name.startswith('val/')}
    return {'epoch': runner.epoch, **scores, 'samples': len(runner.val_dataloader.dataset)}


def measured(cfg: Config) -> Config:
    """Return the config with the file of what SPT tunes, measured with the run's own training data.

    Raises:
        UserError: when it cannot be measured.
    """
    if not trains_by_budget(cfg.model):
        return cfg
    file = Path(cfg.work_dir, SPT_FILE)
    if not file.is_file():
        # a process of its own: a fork of one that has used a GPU could not
        command = sensitivity_command(cfg.filename, file, [f'{k}={v}' for k, v in cfg.given_options.items()])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f'Sensitivity was not measured: {shortened(done.stderr.strip(), 300, end=True)}')
    cfg.model.petl.spt.file = cfg.given_options['model.petl.spt.file'] = str(file)
    return cfg


def _leave_result(search: Search, runner: PETLRunner, scores: dict[str, Any]) -> None:
    """Write the result on held-out data; another evaluator's scores leave none."""
    if not all(f'acc/{name}' in scores for name in ACCURACIES):
        return
    count = runner.plain_model.plan.count()
    machine = f'{os.cpu_count()} CPU cores'
    record = Record(
        config=search.name,
        seed=runner.seed,
        **{name: scores[f'acc/{name}'] for name in ACCURACIES},
        params=count['trainable'],
        total=count['total'],
        checkpoint=f'adapter_epoch_{runner.epoch}.pth',
        epoch=scores['epoch'],
        samples=scores['samples'],
        options=runner.cfg.given_options,
        finished=datetime.now().astimezone().isoformat(timespec='seconds'),
        machine=torch.cuda.get_device_name() if torch.cuda.is_available() else machine,
        by=count['by'],
    )
    write_record(runner.work_dir, record, RESULT)


def result_of_run(folder: Path) -> Record | None:
    """Return the result on held-out data that a run has left; None if there is none."""
    file = folder / RESULT
    return read_record(file) if file.is_file() else None


def believed(search: Search, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return those of ``trials`` that were trained to the end, and whose run has left the score of the journal.

    The journal alone says nothing: anybody who can write it could have added a trial.
    """
    needed = _leaves_result(search)
    return [t for t in whole(search, trials) if _has_left(search, t, needed)]


def _leaves_result(search: Search) -> bool:
    """Return whether the config's validation has all the scores that a result needs, and the metric is of them."""
    given = config_of(search).get('val_evaluator') or ()
    own = (e for e in (given if isinstance(given, (list, tuple)) else [given]) if e.get('type') == 'PETLAccuracy')
    return search.metric in PERCENT and any({1, 5} <= {*e.get('topk', (1, 5))} and not e.get('prefix') for e in own)


def _has_left(search: Search, trial: FrozenTrial, needed: bool) -> bool:
    try:
        record = result_of_run(search.trial_folder(trial.number))
    except UserError:
        return False
    if record is None or search.metric not in PERCENT:
        return not needed
    return math.isclose(getattr(record, search.metric.rpartition('/')[2]), trial.value, abs_tol=1e-6)
