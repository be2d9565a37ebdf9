"""Work on many files in parallel, where one file may crash or hang its process without ending the rest."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from ..errors import tellable

Job = TypeVar('Job')


class Failed(NamedTuple):
    """The result of a job that raised, crashed or took too long.

    Args:
        reason: why, on one line.
        lasting: it would fail again; not so where it was only too slow, or killed from outside.
    """

    reason: str
    lasting: bool = True


def reason_of(error: BaseException) -> str:
    """An error on one line of printable text, without the times and the source lines that decord puts before."""
    text = re.sub(r'\[[\d:]+\] \S+:\d+: ', '', str(error).strip()).splitlines() or ['']
    return tellable(f'{type(error).__name__}: {text[0][:160]}')


class _Worker:
    """A process that does one job at a time, with both ends of the talk to it."""

    def __init__(self, task: Callable[[Any], Any], seconds: float) -> None:
        # forked, as a fresh process would first import torch and mmaction2
        context = multiprocessing.get_context('fork')
        self.seconds = seconds
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(task, theirs, seconds, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is noticed here

    def give(self, job: Any) -> None:
        self.job = job
        with suppress(OSError):  # a dead process is found by take
            self.pipe.send(job)

    def take(self) -> Any:
        """The result; a :class:`Failed` of a dead process where there is none."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            self.end()
        code = self.process.exitcode or 0
        if code == -signal.SIGALRM:
            return Failed(f'took more than {self.seconds:g} seconds', lasting=False)
        if code == -signal.SIGKILL:
            return Failed('its process was killed, perhaps for want of memory', lasting=False)
        return Failed(f'crashed the decoder ({signal.Signals(-code).name if code < 0 else f"exit status {code}"})')

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(task: Callable[[Any], Any], pipe: Connection, seconds: float, parent: int) -> None:
    """Do the jobs that come, for as long as the parent lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever code it hangs in
    faulthandler.disable()  # a crash is the parent's to tell
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # FFmpeg's remarks; what matters comes back as an exception
    while True:
        while not pipe.poll(1):
            if os.getppid() != parent:
                return
        try:
            job = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            result = task(job)
        except Exception as error:  # decoders name no set of errors for a damaged file
            result = Failed(reason_of(error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(result)


def each(
    task: Callable[[Job], Any], jobs: Iterable[Job], workers: int = 1, seconds: float = 60
) -> Iterator[tuple[Job, Any]]:
    """Every job with its result, as they are finished.

    Args:
        task: what to do with a job; what it raises becomes a :class:`Failed`.
        jobs: taken one by one, as processes are free.
        workers: processes. Defaults to 1, which is beside this one as well.
        seconds: the time that a job may take. Defaults to 60.

    The processes end with the loop over the results, whether it ends, breaks or raises.
    """
    jobs = iter(jobs)
    busy: dict[Connection, _Worker] = {}

    def start(job: Job, worker: _Worker | None = None) -> None:
        worker = worker or _Worker(task, seconds)
        busy[worker.pipe] = worker
        worker.give(job)

    try:
        for job in islice(jobs, max(1, workers)):
            start(job)
        while busy:
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                done, result = worker.job, worker.take()
                for job in islice(jobs, 1):
                    start(job, None if pipe.closed else worker)
                if pipe not in busy and not pipe.closed:
                    worker.end()
                yield done, result
    finally:
        for worker in busy.values():
            worker.end()
