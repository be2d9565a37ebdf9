"""What a Slurm cluster says of itself and of its jobs; ``sacct`` is not asked, as accounting may be off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import UserError, did_you_mean, shortened

JOB_ID = re.compile(r'[1-9]\d{0,9}(_\d{1,7})?')
FIELDS = 'JobArrayID:40,State:24,exit_code:16,Reason:120'
# a job in any other state is queued, runs, or will run again
OVER = ('BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL', 'OUT_OF_MEMORY', 'PREEMPTED')
OVER += ('REVOKED', 'TIMEOUT')
STUCK = ('launch failed requeued held', 'JobHoldMaxRequeue')
# what a job that is submitted from inside another would inherit, of the other's resources and ranks; and variables
# that sbatch puts above the options in a script
INHERITED = re.compile(
    r'(SLURM|SLURMD|SRUN|SUBMITIT)_.+|(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|SBATCH_((CPUS|GPUS|GRES|NO_)\w*'
    r'|ARRAY_INX|ERROR|JOB_NAME|OPEN_MODE|OUTPUT|PARTITION|REQUEUE|SIGNAL|TIMELIMIT|WAIT)'
)


@dataclass(frozen=True)
class ClusterJob:
    """A job as ``squeue`` shows it.

    Args:
        state: in Slurm's words, such as ``'RUNNING'``.
        status: of its end: 0 to 127 as the job's own, more after a signal, None where that is not known.
        reason: why it waits.
    """

    state: str
    status: int | None = None
    reason: str = ''

    @property
    def over(self) -> bool:
        """Whether the job has ended for good."""
        return self.state in OVER

    @property
    def stuck(self) -> bool:
        """Whether Slurm could not start the job and will not try again by itself."""
        return self.state in ('PENDING', 'REQUEUE_HOLD', 'SPECIAL_EXIT') and self.reason.replace('_', ' ') in STUCK


def ask(*command: str) -> str:
    """Return what one of Slurm's commands prints.

    Raises:
        UserError: when it is not installed, fails (with the last line it says), or does not answer in a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f'There is no {command[0]} here: run this on a machine of a Slurm cluster, or use --engine local.'
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f'{command[0]} does not answer.') from error
    if done.returncode:
        raise UserError(f'{command[0]} fails: {said(done.stderr)}.')
    return done.stdout


def said(stderr: str) -> str:
    """Return the reason in what a command of Slurm complains: the last line, without its names."""
    lines = [line for line in stderr.strip().splitlines() if not line.startswith('Try ')] or ['no reason is given']
    return shortened(lines[-1].rpartition('failed: ')[2].rpartition('failure: ')[2].rstrip('.'), 200)


class Partition(NamedTuple):
    """What a cluster's partition offers.

    Args:
        hours: the most of a job; None for any.
        gpus: whether its machines have GPUs.
    """

    hours: float | None
    gpus: bool


def check_cluster(partition: str | None) -> Partition:
    """Check that a cluster answers and has a partition, the default one if None; return what it offers.

    Of several, separated by commas, the job may come to any: the shortest time, and GPUs only if all have them.

    Raises:
        UserError: when there is no Slurm, no cluster that answers, or no such partition.
    """
    if shutil.which('sbatch') is None:
        ask('sbatch')  # says what to do
    try:
        lines = ask('sinfo', '--noheader', '--format=%P|%l|%G').split()
    except UserError as error:
        why = str(error).partition(' fails: ')[2] or str(error)
        raise UserError(f'sbatch exists, but no cluster answers ({why.rstrip(".")}).') from error
    offers: dict[str, list[Partition]] = {}
    for name, limit, resources in (line.split('|') for line in lines if line.count('|') == 2):
        offer = Partition(hours_of(limit), 'gpu' in resources)
        for key in (name.rstrip('*'), *([None] if name.endswith('*') else [])):
            offers.setdefault(key, []).append(offer)
    found = []
    for name in [None] if partition is None else partition.split(','):
        if name is not None and name not in offers:
            names = [n for n in offers if n is not None]
            raise UserError(
                f'The cluster has no partition {name!r}, sinfo names {", ".join(names) or "none"}.'
                f'{did_you_mean(name, names)}'
            )
        there = offers.get(name, [Partition(None, True)])  # machines of one partition may differ
        found.append(Partition(there[0].hours, any(offer.gpus for offer in there)))
    limits = [offer.hours for offer in found if offer.hours is not None]
    return Partition(min(limits, default=None), all(offer.gpus for offer in found))


def hours_of(limit: str) -> float | None:
    """Return the hours in a time limit as Slurm writes it, such as ``1-12:00:00`` or ``30:00``; None for no limit."""
    found = re.fullmatch(r'(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)', limit)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def check_request(options: Mapping[str, object]) -> None:
    """Ask the cluster whether it could ever run a job with these options of ``sbatch``; nothing is submitted.

    Raises:
        UserError: when it could not, such as with more GPUs than a machine has.
    """
    flags = [f'--{name}' if value is True else f'--{name}={value}' for name, value in options.items()]
    with own_environment():
        command = ['sbatch', '--test-only', *flags, '--wrap=true']
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError('sbatch does not answer.') from error
    if done.returncode:
        raise UserError(f'The cluster cannot run a job with {" ".join(flags)}: {said(done.stderr)}.')


def cluster_jobs(name: str) -> dict[str, ClusterJob]:
    """Return the jobs of a name, also those that ended in the last minutes, by their ids.

    Raises:
        UserError: when the cluster does not answer.
    """
    text = ask('squeue', '--noheader', '--states=all', '--array', f'--name={name}', f'--Format={FIELDS}')
    jobs = {}
    for line in text.splitlines():
        id_, state, status, reason = [*line.split(maxsplit=3), '', '', '', ''][:4]
        if JOB_ID.fullmatch(id_):
            jobs[id_] = ClusterJob(state, _status(status), reason.strip())
    return jobs


def _status(wait: str) -> int | None:
    """Return a shell's exit status from that of wait(2): signals come after 128."""
    if not wait.isdecimal():
        return None
    return int(wait) >> 8 or (int(wait) & 127 and 128 + (int(wait) & 127))


@contextmanager
def own_environment() -> Iterator[None]:
    """Take out of the environment, for a while, what sbatch or a job would read there and should not."""
    kept = {k: v for k, v in os.environ.items() if INHERITED.fullmatch(k) and k != 'SLURM_CONF'}
    for key in kept:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(kept)
