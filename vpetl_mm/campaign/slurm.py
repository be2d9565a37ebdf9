"""Carry jobs out on a Slurm cluster, as job arrays."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from ..errors import UserError
from ..files import from_json, os_errors_explained, read_start, written_whole
from .attempt import BUSY, DONE, FAILED, note_failure, read_attempt
from .attempt import FILE as ATTEMPT
from .claim import claimed, in_use
from .cluster import JOB_ID, ClusterJob, ask, check_cluster, check_request, cluster_jobs
from .job import Job
from .local import KILLED, STATUS
from .submission import Resources, submit

FILE = 'slurm.json'  # in a job's folder: its job in Slurm, to be believed only where the cluster confirms it
LOCK = '.submitting'  # in the campaign's folder
LOGS = 'logs'  # in the campaign's folder: submitit's files, and what a job prints outside of its attempt
HOURS = 24.0  # where the partition has no limit
MOST_HOURS = 24 * 365
LARGEST = 1000  # jobs of an array: a cluster takes 1001 unless it is told otherwise


class SlurmEngine:
    """A Slurm job of one task for each job.

    A job that is preempted, loses its node or reaches its time limit goes back into Slurm's queue and goes on from
    what it left. The jobs do not need this process: another driver of the same folder takes them up.

    Args:
        folder: the campaign's; Slurm's jobs are named after it.
        partition: where they run. Defaults to ``SBATCH_PARTITION``, or the cluster's default.
        gpus: of each job, on one machine; none where the partition has none. Defaults to 1.
        cpus: cores of each job. Defaults to 8 a GPU, the loader workers of a config, and 1 without GPUs.
        hours: after which a job goes back into the queue. Defaults to the partition's limit, or 24.
        max_parallel: jobs that run at a time. Defaults to as many as Slurm starts.
        options: of ``sbatch``, by long name without dashes, such as ``dict(account='vision', mem='64G')``.
        pause: seconds between two questions to the cluster. Defaults to 10.

    Raises:
        UserError: when submitit or Slurm is missing, no cluster answers, or it could not run such a job.
    """

    def __init__(
        self,
        folder: Path,
        *,
        partition: str | None = None,
        gpus: int = 1,
        cpus: int | None = None,
        hours: float | None = None,
        max_parallel: int | None = None,
        options: Mapping[str, str] | None = None,
        pause: float = 10.0,
    ) -> None:
        if find_spec('submitit') is None:
            raise UserError('--engine slurm needs submitit: pip install submitit.')
        if max_parallel is not None and max_parallel < 1:
            raise UserError(f'--max-parallel must be at least 1, got {max_parallel}.')
        partition = partition or os.environ.get('SBATCH_PARTITION')
        if hours is not None and not 0 < hours <= MOST_HOURS:
            raise UserError(f'--hours must be above 0 and at most {MOST_HOURS}, got {hours}.')
        offer = check_cluster(partition)
        if offer.hours is not None and hours is not None and hours > offer.hours:
            raise UserError(f'A job of {hours:g} hours is more than the {offer.hours:.3g} that its partition allows.')
        gpus = gpus if offer.gpus else 0
        cpus = (8 * gpus or 1) if cpus is None else cpus
        self.resources = Resources(partition, gpus, cpus, hours or offer.hours or HOURS, dict(options or {}))
        check_request(self.resources.as_options())
        self.folder, self.max_parallel, self.pause = Path(folder), max_parallel, pause
        self.name = _name_of(self.folder)
        self._queued: dict[str, tuple[Job, str]] = {}  # a job's name -> the job, and its id in Slurm
        self._seen: dict[str, ClusterJob] = {}  # at the last question
        self._over: list[tuple[Job, str]] = []
        self._asked = -pause

    def start(self, waiting: Sequence[Job]) -> list[Job]:
        """Submit the jobs, no more than may run at a time once others are queued; return those taken up.

        What an earlier driver has submitted is taken up and not submitted again; what another process does is
        reported as busy.
        """
        finished = [job for job in waiting if job.done()]
        self._over += [(job, DONE) for job in finished]
        rest = [job for job in waiting if job not in finished]
        if not rest or self._room() < 1:
            return finished
        with claimed(self.folder, LOCK) as ours:
            there = self._jobs() if ours else None
            if there is None:  # what another driver is submitting now is taken up the next time
                return finished
            new, taken = [], []
            for job in rest:
                id_ = read_id(job.folder)
                if id_ in there and not there[id_].over:
                    self._queued[job.name] = (job, id_)
                elif in_use(job.folder):
                    self._over.append((job, BUSY))
                else:
                    new.append(job)
                    continue
                taken.append(job)
            new = new[: max(0, self._room())]
            self._submit(new)
        return finished + taken + new

    def _jobs(self) -> dict[str, ClusterJob] | None:
        """Return the campaign's jobs by their ids, or None while a cluster that has taken jobs does not answer."""
        try:
            return cluster_jobs(self.name)
        except UserError:
            if self._queued:
                return None
            raise

    def _room(self) -> int:
        """Return how many jobs may be submitted: the limit of an array does not hold for two of them."""
        if self.max_parallel is None or not self._queued:
            return LARGEST
        return self.max_parallel - len(self._queued)

    def _submit(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        with os_errors_explained():
            for job in jobs:
                job.folder.mkdir(parents=True, exist_ok=True)
                (job.folder / ATTEMPT).unlink(missing_ok=True)  # what it says later is of this submission
            at_a_time = min(len(jobs), self.max_parallel or LARGEST)
            ids = submit(jobs, self.resources, self.name, self.folder / LOGS, at_a_time)
            self._queued |= {job.name: (job, id_) for job, id_ in zip(jobs, ids, strict=True)}
            for job, id_ in zip(jobs, ids, strict=True):
                note = dict(job=id_, submitted=datetime.now().isoformat(timespec='seconds'))
                with written_whole(job.folder / FILE, shared=True) as partial:
                    partial.write_text(f'{json.dumps(note)}\n', encoding='utf-8')

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs that have ended since the last call: ``'done'``, ``'failed'``, ``'busy'``, ``'killed'``.

        A job that is cancelled has failed. One whose node failed for good, or that Slurm does not know any more and
        that has left no result, was killed.
        """
        over, self._over = self._over, []
        if self._queued and time.monotonic() - self._asked >= self.pause:
            self._asked = time.monotonic()
            there = self._jobs()
            if there is not None:
                ends = [(job, self._end(job, id_, there.get(id_))) for job, id_ in self._queued.values()]
                self._seen = there
                over += [(job, how) for job, how in ends if how is not None]
        for job, _ in over:
            self._queued.pop(job.name, None)
        return over

    def _end(self, job: Job, id_: str, there: ClusterJob | None) -> str | None:
        """Return how a job has ended, or None; why, if it could not note that itself."""
        if there is not None and not there.over:
            return self._unfinished(job, id_, there)
        if job.done():
            return DONE
        last = read_attempt(job.folder)
        state, status = (there.state, there.status) if there else ('', None)
        # a waiting task of an array that is cancelled leaves no trace
        if state == 'CANCELLED' or (not state and not last and self._waited(id_)):
            note_failure(job.folder, f'its Slurm job {id_} was cancelled')
            return FAILED
        if state == 'OUT_OF_MEMORY':
            note_failure(job.folder, f'its Slurm job {id_} needed more memory than it had (mem)')
            return FAILED
        if last is not None and last.state == FAILED:
            return FAILED
        if status == STATUS[BUSY] or in_use(job.folder):
            return BUSY
        if state == 'FAILED' and status is not None and 0 < status < 128:
            note_failure(job.folder, f'its Slurm job {id_} ended with status {status}{self._last_words(id_)}')
            return FAILED
        return KILLED

    def _unfinished(self, job: Job, id_: str, there: ClusterJob) -> str | None:
        """Return how a job has ended that Slurm counts as queued or running, or None."""
        if there.stuck:
            with suppress(UserError):  # it is cancelled, and submitted again in its place
                ask('scancel', id_)
                return DONE if job.done() else KILLED
        # requeued after its work was done, it ends as soon as it starts again
        return DONE if there.state == 'PENDING' and job.done() else None

    def _waited(self, id_: str) -> bool:
        """Return whether a job had not started at the last question."""
        return id_ not in self._seen or self._seen[id_].state == 'PENDING'

    def _last_words(self, id_: str) -> str:
        """Return the last line of a Slurm job's own log."""
        with suppress(OSError):
            log = self.folder / LOGS / f'{id_}_0_log.err'
            lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
            return f': {lines[-1].strip()}' if lines else ''
        return ''

    def stop(self) -> str:
        """Leave the jobs to Slurm; return how to go on with them and how to cancel them."""
        if not self._queued:
            return 'No job is left in Slurm.'
        arrays = sorted({id_.partition('_')[0] for _, id_ in self._queued.values()}, key=int)
        return (
            f'{len(self._queued)} jobs go on in Slurm: the same command takes them up again, and '
            f'"scancel {" ".join(arrays)}" cancels them.'
        )


def read_id(folder: Path) -> str | None:
    """Return the Slurm job that a job's folder names, or None; whether it exists, the cluster alone knows."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        id_ = from_json(read_start(folder / FILE, 1000)).get('job')
        return id_ if JOB_ID.fullmatch(id_) else None
    return None


def _name_of(folder: Path) -> str:
    """Return the name of a campaign's jobs in Slurm: its folder's, and another for another folder."""
    where = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    return f'{re.sub("[^A-Za-z0-9.]", "-", folder.name.strip("."))[:40] or "jobs"}-{where}'
