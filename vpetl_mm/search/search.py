"""A search from its first trial to the tested winner, carried out by an engine of jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from ..campaign.driver import Engine, drive
from ..campaign.job import Job
from ..engine.record import FILE, Record, read_record
from ..errors import UserError
from ..files import os_errors_explained
from .finalists import Finalist, best, finalists_of, read_score, seed_jobs
from .settings import Search, write_search
from .show import CSV, FIGURE, SearchProgress, draw, duration, table, write_csv
from .study import budget, counted, open_study, start_with_own_values, values_of
from .winner import WINNER, choose_winner, tuned_config, winner_job
from .worker import workers

LOOK = 2.0  # seconds between two looks at the searches


def at_once(line: str) -> None:
    """Print a line, also where the output is a file."""
    print(line, flush=True)


def tune(
    searches: Sequence[Search],
    engine: Engine,
    trials: int = 20,
    jobs: int = 2,
    finalists: int = 3,
    seeds: int = 3,
    say: Callable[[str], None] = at_once,
) -> list[Record]:
    """Carry out searches, or go on with them, and return the results of their winners.

    Args:
        searches: of :func:`~.checks.planned`, with different folders.
        engine: carries the workers and the runs out.
        trials: of each search, failed and pruned ones included. Defaults to 20.
        jobs: workers, which share the searches. Defaults to 2.
        finalists: trials that are run with all seeds; with 0 the search ends with its trials, and nothing is tested.
            Defaults to 3.
        seeds: of a finalist. Defaults to 3.
        say: prints a line.

    Raises:
        UserError: when the test list has been read for fewer trials, no trial or no winner could be trained,
            or the disk is full.
    """
    with os_errors_explained():
        return _tune(searches, engine, trials, jobs, finalists, seeds, say)


def _tune(
    searches: Sequence[Search],
    engine: Engine,
    trials: int,
    jobs: int,
    finalists: int,
    seeds: int,
    say: Callable[[str], None],
) -> list[Record]:
    for search in searches:
        _check_open(search, trials)
    for search in searches:
        write_search(search)
        start_with_own_values(search, open_study(search))
    progresses: list[SearchProgress] = []
    for search in searches:
        progresses.append(SearchProgress(search, trials, jobs, progresses))
    with _shown(progresses, say):
        _drive(workers(searches, trials, jobs), engine, say, told=False)
    for search in searches:
        say(f'{search.folder}: {write_csv(search).name}, {draw(search).name}')
    if not finalists:
        for search in searches:
            (top,) = best(search, 1)
            say(f'{search.name}, trial {top.number}: {top.value:.2f}, the best: {_chosen(values_of(search, top))}')
        return []
    _drive([job for s in searches for job in seed_jobs(s, finalists, seeds)], engine, say, _has_failed_itself)
    for search in searches:
        _say_finalists(search, _choose(search, finalists, seeds), say)
    _drive([winner_job(search) for search in searches], engine, say)
    records = [read_record(Path(search.folder, WINNER, FILE)) for search in searches]
    for search, record in zip(searches, records, strict=True):
        say(f'{tuned_config(search)}: top-1 {record.top1:.2f} on the test list, chosen from {record.trials} trials')
    return records


def _check_open(search: Search, trials: int) -> None:
    """Raise :class:`UserError` where a folder is in the way, or more trials follow a read test list."""
    for name in (CSV, FIGURE, tuned_config(search).name):
        if (there := Path(search.folder, name)).is_dir():
            raise UserError(f'{there} is a folder, and the search writes a file of that name: remove it.')
    file = Path(search.folder, WINNER, FILE)
    if file.is_file() and budget(search, trials) > (done := read_record(file).trials):
        raise UserError(
            f'{search.folder} has its winner of {done} trials, for which the test list has been read: search with '
            'more trials in another --work-dir.'
        )


def _choose(search: Search, finalists: int, seeds: int) -> list[Finalist]:
    """Return the finalists, and write the winner's config; one that was tested stays."""
    ranked = finalists_of(search, finalists, seeds)
    count = len(counted(open_study(search)))
    if not Path(search.folder, WINNER, FILE).is_file():
        choose_winner(search, ranked[0], count)
    return ranked


def _say_finalists(search: Search, ranked: Sequence[Finalist], say: Callable[[str], None]) -> None:
    for one in ranked:
        chosen = _chosen(one.chosen)
        spread = f' ± {one.spread:.2f}' if len(one.values) > 1 else ''
        say(f'{search.name}, trial {one.number}: {one.mean:.2f}{spread} over {len(one.values)} seed(s): {chosen}')


def _chosen(settings: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in settings.items())


def _has_failed_itself(job: Job) -> bool:
    """Return whether a finalist's run has failed by its settings, not by a kill or a full disk."""
    return isinstance(read_score(job.folder), str)


def _drive(
    jobs: Sequence[Job],
    engine: Engine,
    say: Callable[[str], None],
    can_do_without: Callable[[Job], bool] = lambda job: False,
    told: bool = True,
) -> None:
    """Carry out jobs, and say which fail; with ``told``, also which are done.

    Raises:
        UserError: at the end, if one failed that the search cannot do without.
    """
    failed = []
    for event in drive([job for job in jobs if not job.done()], engine):
        if event.what == 'failed':
            failed.append(event)
            say(f'{event.job.name} failed: {event.reason}; see {event.job.folder}/run.log')
        elif event.what == 'done' and told:
            say(f'{event.job.name}: done in {duration(event.seconds)}')
    missed = [event for event in failed if not event.job.done() and not can_do_without(event.job)]
    if missed:
        reasons = '; '.join(f'{event.job.name} ({event.reason.removesuffix(".")})' for event in missed)
        raise UserError(f'{reasons}: the same command goes on.')


@contextmanager
def _shown(progresses: Sequence[SearchProgress], say: Callable[[str], None]) -> Iterator[None]:
    """Show how searches stand meanwhile: a live table on a terminal, elsewhere a line for each trial that ends."""
    console, over = Console(), threading.Event()
    for progress in progresses:
        known = len(progress.news())
        if known:
            say(f'{progress.search.name}: {known} of {progress.budget} trials are finished already')

    def lines() -> None:
        for line in (line for progress in progresses for line in progress.news()):
            say(line)

    def watch() -> None:
        while not over.wait(LOOK):
            live.update(table(progresses)) if live else lines()

    live = Live(table(progresses), console=console, refresh_per_second=2) if console.is_terminal else None
    thread = threading.Thread(target=watch, daemon=True)
    if live:
        live.start()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if live:
            live.update(table(progresses))
            live.stop()
        else:
            lines()
