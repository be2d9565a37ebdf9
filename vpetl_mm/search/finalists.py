"""The best trials, with several seeds each."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from optuna.trial import FrozenTrial

from ..campaign.job import Job
from ..engine.entries import at
from ..errors import UserError, shortened
from ..files import from_json, read_start, written_whole
from .settings import Search, config_of, read_search
from .study import REASON, counted, open_study, values_of, whole
from .trial import RESULT, ReportHook, believed, disk_is_full, score, tidy, why_failed

SCORE = 'score.json'


@dataclass(frozen=True)
class Finalist:
    """One of the best trials.

    Args:
        number: of the trial.
        chosen: its settings.
        values: the metric, by seed.
    """

    number: int
    chosen: dict[str, Any]
    values: dict[int, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return mean(self.values.values())

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; 0 for one of them."""
        return stdev(self.values.values()) if len(self.values) > 1 else 0.0


def best(search: Search, count: int) -> list[FrozenTrial]:
    """Return the best trials that were trained to the end and have left their results, of equal settings one.

    Raises:
        UserError: when there is none, with why the last one failed.
    """
    there = counted(open_study(search))
    done = believed(search, there)
    if not done:
        why = next((t.user_attrs[REASON] for t in reversed(there) if REASON in t.user_attrs), 'no reason is known')
        if whole(search, there):
            raise UserError(f'No finished trial of {search.name} has the {RESULT} of its score: search anew.')
        raise UserError(f'No trial of {search.name} was trained to the end; the last failure: {shortened(why, 300)}')
    distinct = {
        str(sorted(values_of(search, t).items())): t for t in sorted(done, key=lambda t: (t.value, -t.number))
    }
    return sorted(distinct.values(), key=lambda t: (-t.value, t.number))[:count]


def seeds_of(search: Search, count: int) -> range:
    """Return the seeds of a finalist: the config's own, with which the trial was run, and the next ones."""
    first = at(config_of(search), 'randomness.seed') or 0
    return range(first, first + count)


def _folder(search: Search, number: int, seed: int) -> Path:
    return Path(search.folder, 'finalists', f'trial_{number:03}', f'seed_{seed}')


def seed_jobs(search: Search, finalists: int, seeds: int) -> list[Job]:
    """Return the runs that the finalists need beside their trials."""
    jobs = []
    for trial in best(search, finalists):
        for seed in seeds_of(search, seeds)[1:]:
            folder = _folder(search, trial.number, seed)
            work = partial(run_seed, search.folder, trial.number, seed)
            name = f'{search.name}, trial {trial.number}, seed {seed}'
            jobs.append(Job(name, folder, work, partial(is_scored, folder)))
    return jobs


def run_seed(folder: str, number: int, seed: int) -> None:
    """Train a trial's settings with another seed on held-out data, and leave its score, or why it has none.

    Raises:
        UserError: as :func:`~vpetl_mm.engine.experiment.train`.
    """
    search = read_search(folder)
    trial = next(t for t in open_study(search).get_trials(deepcopy=False) if t.number == number)
    place, hook = _folder(search, number, seed), ReportHook(search.metric)
    (place / SCORE).unlink(missing_ok=True)
    try:
        score(search, place, values_of(search, trial), hook, seed)
    except Exception as error:
        if not disk_is_full(error):  # which is no fault of the settings
            _write_score(place, why_failed(error))
        raise
    _write_score(place, hook.scores[search.metric])
    tidy(place)


def _write_score(folder: Path, score_or_reason: float | str) -> None:
    with written_whole(folder / SCORE) as partial_file:
        partial_file.write_text(f'{json.dumps(score_or_reason)}\n', encoding='utf-8')


def read_score(folder: Path) -> float | str | None:
    """Return the score that a finalist's run has left, or why it failed by its own fault; None if it has neither."""
    with suppress(OSError, ValueError, OverflowError):
        content = from_json(read_start(folder / SCORE, 10_000))
        if isinstance(content, str) or (type(content) in (int, float) and math.isfinite(content)):
            return content
    return None


def is_scored(folder: Path) -> bool:
    """Return whether a finalist's run has left its score."""
    return isinstance(read_score(folder), (int, float))


def finalists_of(search: Search, count: int, seeds: int) -> list[Finalist]:
    """Return the finalists whose runs with all seeds are finished, the best mean first.

    Raises:
        UserError: when there is none.
    """
    found = []
    for trial in best(search, count):
        first, *others = seeds_of(search, seeds)
        scores = {seed: read_score(_folder(search, trial.number, seed)) for seed in others}
        if all(isinstance(one, (int, float)) for one in scores.values()):
            found.append(Finalist(trial.number, values_of(search, trial), {first: trial.value} | scores))
    if not found:
        raise UserError(
            f'No finalist of {search.name} was trained with {seeds} seeds; see {search.folder}/finalists.'
        )
    return sorted(found, key=lambda f: (-f.mean, f.number))
