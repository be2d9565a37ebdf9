"""What is sent to Slurm: jobs as an array, through submitit, and what each task of it calls."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from ..errors import UserError, is_line
from .attempt import DONE, attempt
from .cluster import own_environment, said
from .job import Job
from .local import STATUS

REQUEUES = 20  # of a job that reaches its time limit
OURS = ('array', 'error', 'job-name', 'open-mode', 'output', 'requeue', 'signal')  # options that are set here


@dataclass(frozen=True)
class Resources:
    """What each job needs.

    Args:
        partition: where it runs, or None for the cluster's default.
        gpus: GPUs, on one machine.
        cpus: cores.
        hours: after which it goes back into the queue.
        options: further ones of ``sbatch``, by long name without dashes.

    Raises:
        UserError: for what no job can have.
    """

    partition: str | None
    gpus: int
    cpus: int
    hours: float
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.gpus < 0 or self.cpus < 1 or not self.hours > 0:
            raise UserError(f'A job cannot have {self.gpus} GPUs, {self.cpus} cores and {self.hours:g} hours.')
        for name, value in self.options.items():
            if name in OURS or not re.fullmatch('[a-z][a-z-]+', name) or not is_line(value):
                raise UserError(f'{name}={value!r} cannot be an option of sbatch here, as mem=64G can.')

    @property
    def minutes(self) -> int:
        """The time limit."""
        return ceil(self.hours * 60)

    def as_options(self) -> dict[str, Any]:
        """Return the options of ``sbatch``."""
        given = {'nodes': 1, 'ntasks-per-node': 1, 'cpus-per-task': self.cpus, 'time': self.minutes}
        given |= {'gpus-per-node': self.gpus} if self.gpus else {}
        given |= {'partition': self.partition} if self.partition else {}
        return given | dict(self.options)


class Task:
    """What each task of an array calls; submitit asks ``checkpoint`` for what to call after the time limit."""

    def __call__(self, job: Job) -> None:
        """Carry a job out, and end with the status of its end (:data:`STATUS`)."""
        # submitit outlives SIGTERM, but what the job has started does not, and would then seem to have failed
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Slurm warns all processes of the time limit: this one alone requeues the job
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        state = attempt(job)
        if state != DONE:
            sys.exit(STATUS[state])

    def checkpoint(self, job: Job) -> Any:
        """Return the same again: an attempt goes on from what the last one left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def submit(jobs: Sequence[Job], resources: Resources, name: str, folder: Path, at_a_time: int) -> list[str]:
    """Submit jobs as an array of which ``at_a_time`` run; return their ids in Slurm.

    Args:
        jobs: at least one.
        resources: of each.
        name: of the array.
        folder: for submitit's files, ``<id>_0_log.err`` among them.
        at_a_time: how many may run at a time.

    Raises:
        UserError: when the cluster refuses them; none is submitted then.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
    executor.update_parameters(
        job_name=name,
        time=resources.minutes,
        array_parallelism=at_a_time,
        setup=[f'export OMP_NUM_THREADS={max(1, resources.cpus // max(1, resources.gpus))}'],
        srun_args=[f'--cpus-per-task={resources.cpus}'],  # since Slurm 22.05 a step does not inherit it
        additional_parameters={'requeue': True, **resources.as_options()},
    )
    try:
        with own_environment(), redirect_stderr(io.StringIO()):  # submitit prints what it raises as well
            return [str(submitted.job_id) for submitted in executor.map_array(Task(), jobs)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f'The cluster refuses {len(jobs)} jobs: {said(str(error))}.') from error
