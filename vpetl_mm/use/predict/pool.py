"""Jobs done ahead of their use in processes, whose results come in the order of the jobs."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from ...preparation.workers import Failed, Worker


class Pool:
    """Processes that do jobs ahead of their use; one that dies costs the job that it had.

    A thread waits for each process, so that no result waits in a pipe. Processes are forked as they are needed. Use
    the pool as a context: leaving it ends them all.

    Args:
        task: called with a job, in a process.
        workers: number of processes.
        seconds: the time that a job may take. Defaults to 600.
    """

    def __init__(self, task: Callable[[Any], Any], workers: int, seconds: float = 600) -> None:
        self._task, self._most, self._seconds = task, workers, seconds
        self._threads = ThreadPoolExecutor(workers, 'worker')
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self._alive: set[Worker] = set()
        self._lock = Lock()
        self._ended = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            for worker in self._alive:
                worker.process.kill()  # its thread sees the end of its pipe
            for _ in range(self._most):
                self._idle.put(None)  # for threads that wait
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._alive:
            worker.end()

    def submit(self, job: Any, here: bool = False) -> Future:
        """Have a job done.

        Args:
            job: for the task.
            here: do it in a thread of this process, for jobs that are large and safe.

        Returns:
            a future of the task's result, or of a :class:`Failed` if its process died or it raised there.
        """
        if here:
            return self._threads.submit(self._task, job)
        if len(self._alive) < self._most:
            self._start()
        return self._threads.submit(self._do, job)

    def _start(self) -> None:
        with self._lock:  # a pipe's other end must not be inherited by a process started at the same time
            if not self._ended:
                worker = Worker(self._task, self._seconds)
                self._alive.add(worker)
                self._idle.put(worker)

    def _do(self, job: Any) -> Any:
        worker = self._idle.get()
        while worker is not None and not worker.process.is_alive():  # killed from outside between two jobs
            self._replace(worker)
            worker = self._idle.get()
        if worker is None:
            return Failed('it was not started')
        worker.give(job)
        result = worker.take()
        if worker.pipe.closed:
            self._replace(worker)
        else:
            self._idle.put(worker)
        return result

    def _replace(self, worker: Worker) -> None:
        with self._lock:
            self._alive.discard(worker)
        self._start()
