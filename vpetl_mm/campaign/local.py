"""Carry jobs out on this machine, as many at a time as fit."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import torch

from ..engine.launch import available_cores
from ..errors import UserError
from .attempt import BUSY, DONE, FAILED, attempt
from .attempt import FILE as ATTEMPT
from .job import Job

KILLED = 'killed'
STATUS = {DONE: 0, FAILED: 1, BUSY: 3}
# what the processes of all jobs share, so that none has to import it
PRELOAD = ('vpetl_mm', 'vpetl_mm.engine.experiment', 'vpetl_mm.registry')
# imported by the first run of a process alone, when it looks for its log; mmaction2's brings W&B, which takes seconds
PRELOAD += ('mmaction.visualization', 'mmpretrain.visualization', 'torch.utils.tensorboard')


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    gpus: list[str]


class LocalEngine:
    """A process for each job, with GPUs of its own.

    The processes are forked from a server that has imported this package, which saves ten seconds of each. They do
    not end with this one: a job goes on when its driver is killed.

    Args:
        parallel: jobs at a time. Defaults to as many as there are GPUs for; without GPUs, one for each core.
        gpus: of each job; without any here, jobs run on the CPU. Defaults to 1.
        threads: of torch in each job. Defaults to the cores that are there for it.
        preload: modules that the server imports; the first engine of a process decides. Defaults to what a run needs.

    Raises:
        UserError: for fewer than one job at a time, or more than there are GPUs or cores for.
    """

    def __init__(
        self,
        parallel: int | None = None,
        gpus: int = 1,
        threads: int | None = None,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        there = _gpus_there()
        if gpus < 1 or (there and gpus > len(there)):
            raise UserError(f'--gpus {gpus} is not possible here, where {len(there)} GPUs can be used.')
        fits = len(there) // gpus if there else available_cores()
        self.parallel = fits if parallel is None else parallel
        if self.parallel < 1:
            raise UserError(f'--parallel must be at least 1, got {parallel}.')
        if self.parallel > fits:
            what = f'of {gpus} GPUs each' if there else 'one a core'
            raise UserError(f'{self.parallel} at a time are not possible on this machine: at most {fits}, {what}.')
        self.threads = threads or max(1, available_cores() // self.parallel)
        self.gpus = gpus if there else 0
        self._free = there
        self._running: list[_Running] = []
        # where there are GPUs, what this package imports asks CUDA for them, after which no fork may use it
        self._context = multiprocessing.get_context('spawn' if there else 'forkserver')
        self._context.set_forkserver_preload(list(preload))

    def start(self, waiting: Sequence[Job]) -> list[Job]:
        """Start as many of the jobs as fit now, the first ones; return them."""
        started = list(waiting)[: self.parallel - len(self._running)]
        for job in started:
            (job.folder / ATTEMPT).unlink(missing_ok=True)  # what it says later is of this attempt
            given = [self._free.pop() for _ in range(self.gpus)]
            process = self._context.Process(target=_child, args=(job, os.getcwd(), self.threads, given))
            process.start()
            self._running.append(_Running(job, process, given))
        return started

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs that have ended since the last call: ``'done'``, ``'failed'``, ``'busy'``, ``'killed'``."""
        over = [r for r in self._running if not r.process.is_alive()]
        self._running = [r for r in self._running if r not in over]
        for one in over:
            one.process.join()
            self._free += one.gpus
        states = {status: state for state, status in STATUS.items()}
        return [(r.job, states.get(r.process.exitcode, KILLED)) for r in over]

    def stop(self) -> str:
        """End what is running; the same jobs can be started again. Return what to tell the user."""
        for one in self._running:
            try:
                os.killpg(one.process.pid, signal.SIGTERM)
            except ProcessLookupError:  # it does not lead a group yet
                one.process.terminate()
        for one in self._running:
            one.process.join()
        self._running.clear()
        return 'What was running has been stopped.'


def _gpus_there() -> list[str]:
    """Return the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    named = [name for name in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(k) for k in range(count)]


def _child(job: Job, folder: str, threads: int, gpus: Sequence[str]) -> None:
    """Carry a job out in this process, which leads a group: stopping it stops what it starts."""
    os.setsid()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ['OMP_NUM_THREADS'] = str(threads)  # for the processes that it starts
    if gpus:
        os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(gpus)
    torch.set_num_threads(threads)
    gc.freeze()  # mmengine collects garbage five times a run, and what was imported takes it half a second each
    sys.exit(STATUS[attempt(job)])
