"""A worker: one process that carries out trials of one search or several until all are finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from optuna import Study

from ..campaign.job import Job
from ..engine.failures import told_plainly
from .settings import Search, read_search
from .study import is_over, next_trial, open_study
from .trial import carry_out

WAIT = 2.0  # seconds between two looks at trials of other workers


def work(folders: Sequence[str], trials: int) -> None:
    """Carry out trials of the searches in ``folders``, the first ones first, until each has ``trials`` finished.

    While other workers carry out the last ones, this one waits, to go on with a trial whose worker is killed.

    Raises:
        UserError: when the disk is full, or a study's journal is damaged.
    """
    with told_plainly(resumes=False):
        searches = [found for folder in folders if (found := read_search(folder))]
        studies = [open_study(search) for search in searches]
        while not over(folders, trials):
            if not any(_one(search, study, trials) for search, study in zip(searches, studies, strict=True)):
                time.sleep(WAIT)


def _one(search: Search, study: Study, trials: int) -> bool:
    """Carry out one trial of a search; return whether there was one."""
    with next_trial(search, study, trials) as taken:
        if taken is not None:
            carry_out(search, taken)
    return taken is not None


def over(folders: Sequence[str], trials: int) -> bool:
    """Return whether every search has its trials finished."""
    return all(is_over(search, trials) for folder in folders if (search := read_search(folder)))


def workers(searches: Sequence[Search], trials: int, jobs: int) -> list[Job]:
    """Return the jobs of ``jobs`` workers, which share the searches; their folders lie in the first search's."""
    folders = tuple(search.folder for search in searches)
    done = partial(over, folders, trials)
    return [
        Job(f'worker {k}', Path(folders[0], f'worker_{k}'), partial(work, folders, trials), done) for k in range(jobs)
    ]
