"""Drive a campaign: start jobs, wait for them, and try again what was killed."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .attempt import BUSY, DONE, FAILED, last_line, read_attempt
from .claim import in_use
from .job import Job
from .local import KILLED

STARTED, AGAIN, ELSEWHERE = 'started', 'again', 'elsewhere'
ATTEMPTS = 3  # at a job whose process is killed


class Engine(Protocol):
    """What carries jobs out: processes here, or a cluster."""

    def start(self, waiting: Sequence[Job]) -> list[Job]:
        """Start as many of the jobs as it takes now; return them."""

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs that ended since the last call: ``'done'``, ``'failed'``, ``'busy'`` or ``'killed'``."""

    def stop(self) -> str:
        """Leave or end what is running, when the driver is interrupted; return what to tell the user."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Args:
        job: the job.
        what: ``'started'``, ``'done'``, ``'failed'``, ``'again'`` after a kill, ``'elsewhere'`` if another process
            is at it.
        reason: why it failed.
        seconds: since it was started.
    """

    job: Job
    what: str
    reason: str = ''
    seconds: float = 0.0


def drive(jobs: Sequence[Job], engine: Engine, pause: float = 0.5) -> Iterator[Event]:
    """Carry out jobs in their order, and yield what happens; each is yielded once as done or failed.

    A failing job does not stop the others and is not tried again; one whose process was killed is, up to three times
    in all. What another driver is doing is waited for, and done here if that comes to nothing.

    Args:
        jobs: with different folders.
        engine: carries them out.
        pause: seconds between two looks at them. Defaults to 0.5.
    """
    waiting, elsewhere, open_ = list(jobs), [], len(jobs)
    began: dict[str, float] = {}
    kills: Counter[str] = Counter()
    try:
        while open_:
            for job in engine.start(waiting):
                waiting.remove(job)
                began[job.name] = time.monotonic()
                yield Event(job, STARTED)
            for job in [j for j in elsewhere if j.done() or not in_use(j.folder)]:
                elsewhere.remove(job)
                waiting.append(job)  # an attempt at what is done ends at once
            for job, how in engine.ended():
                what, why = _judged(job, how, kills)
                open_ -= what in (DONE, FAILED)
                waiting += [job] * (what == AGAIN)
                elsewhere += [job] * (what == ELSEWHERE)
                yield Event(job, what, why, time.monotonic() - began[job.name])
            time.sleep(pause if open_ else 0)
    except BaseException:
        print(engine.stop(), file=sys.stderr)
        raise


def _judged(job: Job, how: str, kills: Counter[str]) -> tuple[str, str]:
    """Return what the end of a job comes to, and why."""
    if how == BUSY:
        return ELSEWHERE, ''
    if how == KILLED:
        kills[job.name] += 1
        again = kills[job.name] < ATTEMPTS
        return (AGAIN, '') if again else (FAILED, f'its process was killed {ATTEMPTS} times')
    if how == DONE:
        return DONE, ''
    last = read_attempt(job.folder)
    if last and last.state == FAILED:
        return FAILED, last.reason
    there = next(folder for folder in (job.folder, *job.folder.absolute().parents) if folder.is_dir())
    full = shutil.disk_usage(there).free < 1_000_000  # then the process could not write why it failed
    return FAILED, 'the disk is full' if full else last_line(job.folder) or 'no reason is known'
