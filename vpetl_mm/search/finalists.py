"""The best trials with several seeds each, and the winner: a config of its own, trained and tested once."""

from __future__ import annotations

import json
import math
import os
import pprint
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine import Config
from optuna.trial import FrozenTrial, TrialState

from vpetl_cli.shipped import leaf_of

from ..campaign.claim import claimed, in_use
from ..campaign.job import Job
from ..engine.entries import at
from ..engine.experiment import Options, prepare, test, train
from ..engine.record import FILE
from ..engine.run_folder import LOCK, remove_run
from ..engine.sensitivity_command import SPT_FILE
from ..errors import UserError, shortened
from ..files import from_json, read_start, written_whole
from .settings import Search, config_of, read_search
from .study import REASON, counted, open_study, values_of
from .trial import ReportHook, disk_is_full, measured, score, tidy, why_failed

SCORE = 'score.json'
WINNER = 'winner'


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
    """Return the best trials that were trained to the end, of equal settings one.

    Raises:
        UserError: when there is none, with why the last one failed.
    """
    there = counted(open_study(search))
    whole = sorted((t for t in there if t.state == TrialState.COMPLETE), key=lambda t: (-t.value, t.number))
    if not whole:
        why = next((t.user_attrs[REASON] for t in reversed(there) if REASON in t.user_attrs), 'no reason is known')
        raise UserError(f'No trial of {search.name} was trained to the end; the last failure: {shortened(why, 300)}')
    distinct = {str(sorted(values_of(search, t).items())): t for t in reversed(whole)}
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
    with suppress(OSError, ValueError):
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


def tuned_config(search: Search) -> Path:
    """Return the path of the winner's config."""
    return Path(search.folder, f'{search.name}_tuned.py')


def choose_winner(search: Search, winner: Finalist, trials: int) -> None:
    """Write the winner's config, unless it is there; what another winner has left of its run goes first.

    Raises:
        UserError: when another winner is being trained.
    """
    path, folder, text = tuned_config(search), Path(search.folder, WINNER), winner_text(search, winner, trials)
    if path.is_file() and path.read_text(encoding='utf-8', errors='replace') == text:
        return
    with claimed(folder) as ours:
        if not ours or in_use(folder, (LOCK,)):
            raise UserError(f'{folder} is in use, for the winner of another choice: wait for it, or end it.')
        remove_run(folder)
        (folder / SPT_FILE).unlink(missing_ok=True)
        write_winner(search, winner, trials)


def write_winner(search: Search, winner: Finalist, trials: int) -> Path:
    """Write the winner as a config that inherits the searched one; return its path."""
    path, text = tuned_config(search), winner_text(search, winner, trials)
    with written_whole(path) as partial_file:
        partial_file.write_text(text, encoding='utf-8')
    return path


def winner_text(search: Search, winner: Finalist, trials: int) -> str:
    """Return the winner's config as text."""
    leaf, named = leaf_of(search.name)
    base = Path(search.config).with_stem(leaf).resolve()
    if base.is_relative_to(Path.cwd()) and Path(search.folder).resolve().is_relative_to(Path.cwd()):
        base = Path(os.path.relpath(base, Path(search.folder).resolve()))
    settings = _nested(config_of(search), {**search.options, **winner.chosen})
    entries = {f'vtab_{word}': repr(value) for word, value in named.items()}
    entries |= {key: _written(value) for key, value in settings.items()}
    spread = f' ± {winner.spread:.2f}' if len(winner.values) > 1 else ''
    lines = [
        f'# Trial {winner.number}, the best of {trials} on held-out training data: {search.metric} '
        f'{winner.mean:.2f}{spread} over {len(winner.values)} seed(s).',
        f'_base_ = {str(base)!r}',
        *(f'{key} = {value}' for key, value in entries.items()),
        f'trials = {trials}  # that these settings were chosen from',
    ]
    return '\n'.join(lines) + '\n'


def _nested(cfg: Config, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as nested dicts. A list in which one changes is written whole, as children replace lists."""
    nested: dict[str, Any] = {}
    merged = cfg.copy()
    merged.merge_from_dict(dict(chosen))
    for key in chosen:
        parts, place, source = key.split('.'), nested, merged
        for depth, part in enumerate(parts):
            source = source[part]
            if depth == len(parts) - 1 or isinstance(source, (list, tuple)):
                place[part] = Config(dict(_=source)).to_dict()['_']
                break
            place = place.setdefault(part, {})
    return nested


def _written(value: Any) -> str:
    if isinstance(value, dict) and all(str(key).isidentifier() for key in value):
        return f'dict({", ".join(f"{key}={_written(part)}" for key, part in value.items())})'
    return pprint.pformat(value, width=10**6, sort_dicts=False)


def winner_job(search: Search) -> Job:
    """Return the job that trains and tests the winner."""
    folder = Path(search.folder, WINNER)
    return Job(f'{search.name}, the winner', folder, partial(run_winner, search.folder), (folder / FILE).is_file)


def run_winner(folder: str) -> None:
    """Train the winner's config as it stands, and read the test list, once.

    Raises:
        UserError: as :func:`~vpetl_mm.engine.experiment.train` and :func:`~vpetl_mm.engine.experiment.test`.
    """
    search, place = read_search(folder), Path(folder, WINNER)
    config = tuned_config(search)
    if not _last_adapter(place):
        goes_on = any(place.glob('epoch_[0-9]*.pth'))
        options = Options(str(place), 'auto' if goes_on else None, overwrite=not goes_on)
        train(measured(prepare(config, options)))
    test(measured(prepare(config, Options(str(place)))), _last_adapter(place))


def _last_adapter(folder: Path) -> Path | None:
    """Return what a run wrote at its end, after the last epoch or where it stopped early; None before."""
    files = sorted(folder.glob('adapter_epoch_*.pth'), key=lambda p: int(p.stem.rpartition('_')[2]))
    return files[-1] if files else None
