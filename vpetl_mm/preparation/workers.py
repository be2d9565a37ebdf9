"""Runs jobs in parallel, each of which may crash or hang its process without ending the others."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from ..errors import reason, tellable

Job = TypeVar('Job')


class Failed(NamedTuple):
    """Result of a job that raised, crashed or took too long.

    Args:
        reason: why, on one line.
        lasting: it would fail again: it was not just too slow, or killed from outside. Defaults to True.
    """

    reason: str
    lasting: bool = True


class Worker:
    """A process that does one job at a time, and the pipe to it, which is closed once the process has died.

    Args:
        task: called with each job, in the process; what it raises becomes a :class:`Failed`.
        seconds: the time that a job may take.
    """

    def __init__(self, task: Callable[[Any], Any], seconds: float) -> None:
        # forked, as a fresh process would first import torch and mmaction2
        context = multiprocessing.get_context('fork')
        self.seconds = seconds
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(task, theirs, seconds, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that this process notices its end

    def give(self, job: Any) -> None:
        """Hand over a job."""
        self.job = job
        with suppress(OSError):  # take finds a dead process
            self.pipe.send(job)

    def take(self) -> Any:
        """Return the result, or a :class:`Failed` if the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            self.end()
        code = self.process.exitcode or 0
        if code == -signal.SIGALRM:
            return Failed(f'took more than {self.seconds:g} seconds', lasting=False)
        if code == -signal.SIGKILL:
            return Failed('its process was killed, perhaps for lack of memory', lasting=False)
        return Failed(f'crashed the decoder ({signal.Signals(-code).name if code < 0 else f"exit status {code}"})')

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(task: Callable[[Any], Any], pipe: Connection, seconds: float, parent: int) -> None:
    """Do the jobs that come, for as long as the parent lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever code it hangs in
    faulthandler.disable()  # the parent reports a crash
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
            result = Failed(tellable(f'{type(error).__name__}: {reason(error, 160)}'))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(result)


def each(
    task: Callable[[Job], Any], jobs: Iterable[Job], workers: int = 1, seconds: float = 60
) -> Iterator[tuple[Job, Any]]:
    """Yield every job with its result, in the order in which they finish.

    The processes end with the loop over the results, whether it ends, breaks or raises.

    Args:
        task: called with each job; what it raises becomes a :class:`Failed`.
        jobs: taken one by one, as processes become free.
        workers: processes beside this one. Defaults to 1.
        seconds: the time that a job may take. Defaults to 60.
    """
    jobs = iter(jobs)
    busy: dict[Connection, Worker] = {}

    def start(job: Job, worker: Worker | None = None) -> None:
        worker = worker or Worker(task, seconds)
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
