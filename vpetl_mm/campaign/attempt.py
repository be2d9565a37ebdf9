"""One attempt at a job, in the process that carries it out."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from ..engine.run_folder import LOCK
from ..errors import UserError, is_line, reason, shortened
from ..files import from_json, read_start, written_whole
from .claim import claimed, in_use
from .job import LOG, Job

FILE = 'attempt.json'
RUNNING, DONE, FAILED, BUSY = 'running', 'done', 'failed', 'busy'


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a job, as its folder records it.

    Args:
        state: ``'running'``, ``'done'`` or ``'failed'``; after a kill it still says ``'running'``.
        reason: why it failed, a line.
        started, ended: in ISO format; ``ended`` is empty until then.
        machine: its host name.
    """

    state: str
    reason: str = ''
    started: str = ''
    ended: str = ''
    machine: str = ''


def attempt(job: Job) -> str:
    """Do a job, in this process; return ``'done'``, ``'failed'``, or ``'busy'`` if another process is at it.

    Its output goes to ``run.log`` in its folder, after that of earlier attempts, and the state to ``attempt.json``.
    """
    with claimed(job.folder) as ours:
        if not ours or in_use(job.folder, (LOCK,)):
            return BUSY
        if job.done():
            return DONE
        first = Attempt(RUNNING, started=_now(), machine=socket.gethostname())
        _note(job.folder, first)
        why = _failure(job)
        state = FAILED if why else DONE
        _note(job.folder, Attempt(state, why, first.started, _now(), first.machine))
    return state


def _failure(job: Job) -> str:
    """Do the work; return why it failed, on a line, or an empty string."""
    with output_to(job.folder / LOG):
        try:
            job.work()
        except UserError as error:
            why = str(error)
        except Exception as error:
            traceback.print_exc()
            why = f'{type(error).__name__}: {reason(error)}'
        else:
            why = '' if job.done() else 'it ended without its result'
        why = shortened(why, 300)
        if why:
            print(f'error: {why}', file=sys.stderr)
    return why


@contextmanager
def output_to(file: Path) -> Iterator[None]:
    """Append what this process and those that it starts print to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(target)


def read_attempt(folder: Path) -> Attempt | None:
    """Return the last attempt at a job; None if there was none, or its record cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        content = from_json(read_start(folder / FILE, 10_000))
        last = Attempt(**content)
        if last.state in (RUNNING, DONE, FAILED) and all(is_line(getattr(last, f.name)) for f in fields(last)):
            return last
    return None


def last_line(folder: Path, most: int = 300) -> str:
    """Return the last line that a job printed, or an empty string."""
    if not (folder / LOG).is_file():
        return ''
    with suppress(OSError), open(folder / LOG, 'rb') as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4 * most - 1000))
        lines = stream.read().decode(errors='replace').strip().splitlines()
        return shortened(lines[-1].strip().removeprefix('error: '), most) if lines else ''
    return ''


def note_failure(folder: Path, why: str) -> None:
    """Record why a job failed whose own process could not, such as one that was cancelled."""
    last = read_attempt(folder) or Attempt(RUNNING)
    with suppress(OSError):  # a full disk is no reason to end the driver
        _note(folder, Attempt(FAILED, shortened(why, 300), last.started, _now(), last.machine))


def _note(folder: Path, what: Attempt) -> None:
    with written_whole(folder / FILE, shared=True) as partial:
        partial.write_text(f'{json.dumps(asdict(what), indent=1)}\n', encoding='utf-8')


def _now() -> str:
    return datetime.now().isoformat(timespec='seconds')
