"""The Optuna study of a search, in a journal file that any number of workers on any number of machines share.

The journal does not know which of its running trials still has a worker. A worker claims its trial's folder while it
lives (:func:`~vpetl_mm.campaign.claim.claimed`): the system ends the claim with the process. Machines that share a
search need a file system with POSIX locks that all of them see, such as NFS 4; the journal's own lock is a symbolic
link.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from ..campaign.claim import claimed, in_use
from ..engine.entries import at
from ..engine.failures import FULL
from ..errors import UserError, reason, shortened
from .journal import Journal
from .keys import own_value
from .settings import JOURNAL, Search, check_file, config_of
from .space import Space

TURN = '.turn'
# user attributes of a trial: how often it was started after which epoch, why it failed, and its last scores
STARTS, EPOCH, REASON, SCORES = 'starts', 'epoch', 'reason', 'scores'
MOST_STARTS = 2  # after the same epoch: a trial goes on once, and again where it has come further since
DIGITS = 4  # of a number that a trial takes
POLL = 0.2  # seconds
ACCURACIES = ('top1', 'top5', 'mean_class')
PERCENT = tuple(f'acc/{name}' for name in ACCURACIES)


@dataclass
class ActiveTrial:
    """A trial that this process carries out.

    Args:
        trial: Optuna's.
        folder: of its run.
        chosen: the settings under trial, by dotted key.
        study: its study.
    """

    trial: Trial
    folder: Path
    chosen: dict[str, Any]
    study: optuna.Study


def open_study(search: Search) -> optuna.Study:
    """Return the study of a search, new if there is none. Hyperband's brackets follow the epochs of the config.

    Raises:
        OSError: when the disk is full.
        UserError: when the journal is damaged, or no ordinary file.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = Path(search.folder, JOURNAL)
    check_file(file)
    epochs = at(config_of(search), 'train_cfg.max_epochs')
    hyperband = HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    with _readable(file):
        return optuna.create_study(
            storage=JournalStorage(Journal(file)),
            study_name=search.name,
            direction='maximize',
            load_if_exists=True,
            sampler=RandomSampler(),
            pruner=NopPruner() if search.pruner == 'none' else hyperband,
        )


@contextmanager
def _readable(what: object) -> Iterator[None]:
    """Say in a sentence that a journal cannot be read; Optuna raises any error for a line that it did not write."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise UserError(f'{what} cannot be read ({reason(error)}): search in another --work-dir.') from error


def start_with_own_values(search: Search, study: optuna.Study) -> None:
    """Let the first trial take the config's own values, as far as they lie in their spaces."""
    cfg = config_of(search)
    own = {key: own_value(cfg, key) for key in search.spaces}
    inside = {key: own[key] for key, space in search.parsed().items() if own[key] in space}
    with turn(search):
        if inside and search.sampler != 'grid' and not study.get_trials(deepcopy=False):
            study.enqueue_trial(inside)


@contextmanager
def turn(search: Search) -> Iterator[None]:
    """Wait until no other worker of the search is taking a trial."""
    while True:
        with claimed(Path(search.folder), TURN) as ours:
            if ours:
                yield
                return
        time.sleep(POLL)


def budget(search: Search, trials: int) -> int:
    """Return how many trials there will be: ``trials``, or those of the whole grid if it has fewer."""
    if search.sampler != 'grid':
        return trials
    return min(trials, prod(len(space.points()) for space in search.parsed().values()))


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have been taken by a worker, in order."""
    with _readable(f'The {JOURNAL} of {study.study_name}'):
        trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
        for trial in trials:
            if trial.state == TrialState.COMPLETE and [type(v) for v in trial.values or ()] not in ([float], [int]):
                raise ValueError(f'trial {trial.number} has no score')
    return trials


def whole(search: Search, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return those of ``trials`` that were trained to the end, with every setting and a score that is possible."""
    low, high = (0, 100) if search.metric in PERCENT else (-math.inf, math.inf)
    done = (t for t in trials if t.state == TrialState.COMPLETE and {*search.spaces} <= {*t.params})
    return [t for t in done if math.isfinite(t.value) and low <= t.value <= high]


def is_over(search: Search, trials: int) -> bool:
    """Return whether every trial of the budget is finished."""
    there = counted(open_study(search))
    return len(there) >= budget(search, trials) and all(t.state.is_finished() for t in there)


@contextmanager
def next_trial(search: Search, study: optuna.Study, trials: int) -> Iterator[ActiveTrial | None]:
    """Take a trial, which is this process's until the block ends; None where there is none to take now.

    A trial that its worker left comes first, and a new one while the budget has any. A trial left twice after
    the same epoch is recorded as failed. This process must hold no other trial.
    """
    with ExitStack() as held:
        taken = None
        with turn(search):
            study.sampler = _sampler(search, len(counted(study)), trials)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not in_use(search.trial_folder(trial.number)) and (taken := _left(search, study, trial, held)):
                    break
            if taken is None and len(counted(study)) < budget(search, trials):
                taken = _take(search, study, study.ask(), held)
            # what a trial's end tells a sampler is for Optuna's own loop: a grid would stop it
            study.sampler = RandomSampler()
        yield taken


def _left(search: Search, study: optuna.Study, trial: FrozenTrial, held: ExitStack) -> ActiveTrial | None:
    """Take over a trial whose worker was killed; None if it has been tried often enough."""
    # Optuna starts a new trial instead; a journal holds one study, so that a trial's number is its id
    again = Trial(study, trial.number)
    if _starts(trial) >= MOST_STARTS:
        again.set_user_attr(REASON, f'its process was killed {MOST_STARTS} times after epoch {trial.last_step or 0}')
        study.tell(trial.number, state=TrialState.FAIL)
        return None
    return _take(search, study, again, held, _starts(trial), trial.last_step or 0)


def _starts(trial: FrozenTrial) -> int:
    """Return how often a trial has been started after the last epoch that it reported."""
    same = trial.user_attrs.get(EPOCH, 0) == (trial.last_step or 0)
    return trial.user_attrs.get(STARTS, 0) if same else 0


def _take(
    search: Search, study: optuna.Study, trial: Trial, held: ExitStack, starts: int = 0, epoch: int = 0
) -> ActiveTrial:
    folder = search.trial_folder(trial.number)
    held.enter_context(claimed(folder))
    chosen = {key: _suggested(trial, key, space) for key, space in search.parsed().items()}
    trial.set_user_attr(EPOCH, epoch)
    trial.set_user_attr(STARTS, starts + 1)
    return ActiveTrial(trial, folder, chosen, study)


def _suggested(trial: Trial, key: str, space: Space) -> Any:
    """Return a trial's value of a setting: what it had before, or a new one."""
    if space.kind == 'list':
        return trial.suggest_categorical(key, space.values)
    if space.kind == 'int':
        return trial.suggest_int(key, *space.values)
    return rounded(trial.suggest_float(key, *space.values, log=space.kind == 'log'))


def rounded(value: Any) -> Any:
    """Return a number as a trial takes it, and as a config shows it: with 4 digits."""
    return float(f'{value:.{DIGITS}g}') if isinstance(value, float) else value


def values_of(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    """Return the settings that a trial took, of those that are searched.

    Raises:
        UserError: for a value outside its space, as only a journal has that somebody has edited.
    """
    values = {}
    for key, space in search.parsed().items():
        if key in trial.params:
            if trial.params[key] not in space:
                raise UserError(
                    f'{Path(search.folder, JOURNAL)} is damaged: {key} of trial {trial.number} is '
                    f'{shortened(repr(trial.params[key]), 80)}, not of {space}. Search in another --work-dir.'
                )
            values[key] = trial.params[key] if space.kind == 'list' else rounded(trial.params[key])
    return values


def _sampler(search: Search, number: int, trials: int) -> BaseSampler:
    """Return the sampler that draws trial ``number``, the same one for any worker."""
    if search.sampler == 'grid':
        return GridSampler({key: [*space.points()] for key, space in search.parsed().items()}, seed=0)
    if search.sampler == 'random':
        return RandomSampler(seed=number)
    startup = max(3, min(10, trials // 3))
    return TPESampler(n_startup_trials=startup, constant_liar=True, seed=number)
