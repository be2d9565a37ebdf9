"""The processes of a run, joined under any launcher."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import MutableMapping
from datetime import timedelta

import torch
from mmengine import Config
from torch import distributed

from ..errors import UserError, reason

# what torch.distributed and mmengine read, and what srun sets instead
FROM_SLURM = {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'}
FROM_TORCHRUN = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def read_launcher(launcher: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Read this process's rank from its environment.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun) or ``'slurm'``, whose variables are copied to torchrun's names.
            MASTER_ADDR and MASTER_PORT become the first machine and a port of the job's own, unless they are set.

    Raises:
        UserError: when the launcher did not start this process.
    """
    if launcher == 'slurm':
        _read_slurm(environ)
    missing = [v for v in FROM_TORCHRUN if v not in environ]
    if launcher == 'pytorch' and missing:
        raise UserError(f'--launcher pytorch needs torchrun, which sets {missing[0]}: use tools/dist_train.sh.')


def rank_and_world_size(cfg: Config) -> tuple[int, int]:
    """Return the rank of this process, and the number of processes."""
    if cfg.get('launcher', 'none') == 'none':
        return 0, 1
    read_launcher(cfg.launcher)
    return int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])


def _read_slurm(environ: MutableMapping[str, str]) -> None:
    missing = [v for v in (*FROM_SLURM.values(), 'SLURM_NODELIST') if v not in environ]
    if missing:
        raise UserError(
            f'--launcher slurm needs srun, which sets {missing[0]}: use tools/slurm_train.sh or tools/slurm_test.sh.'
        )
    for ours, theirs in FROM_SLURM.items():
        if not environ[theirs].isdecimal():
            raise UserError(f'{theirs} must be a whole number, got {environ[theirs]!r}.')
        environ[ours] = environ[theirs]
    if 'MASTER_ADDR' not in environ:
        # a step may have fewer machines than its job; rank 0 is on the step's first
        environ['MASTER_ADDR'] = _first_host(environ.get('SLURM_STEP_NODELIST') or environ['SLURM_NODELIST'])
    if 'MASTER_PORT' not in environ:
        # jobs that share a machine need different ports, below 32768, where the system assigns none itself
        job = environ.get('SLURM_JOB_ID', '0')
        environ['MASTER_PORT'] = str(15000 + (int(job) if job.isdecimal() else 0) % 15000)


def _first_host(nodes: str) -> str:
    """Return the first machine of a list in Slurm's short form, such as ``node[01-04,7]``."""
    if re.fullmatch(r'[\w.-]+', nodes):
        return nodes
    try:
        command = ['scontrol', 'show', 'hostnames', nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise UserError(
            f'scontrol, which knows the machines of {nodes}, does not answer; set MASTER_ADDR to the first of them.'
        ) from error


def start_process_group(cfg: Config) -> None:
    """Join the other processes: through gloo on the CPU; on GPUs mmengine does it, from the same variables.

    Raises:
        UserError: when the launcher did not start this process, it has no GPU, or the others do not join.
    """
    if cfg.launcher == 'none' or distributed.is_initialized():
        return
    read_launcher(cfg.launcher)
    if torch.cuda.is_available():
        needed, there = int(os.environ.get('LOCAL_RANK', '0')) + 1, torch.cuda.device_count()
        if needed > there:
            raise UserError(
                f'At least {needed} processes on this machine see {there} GPUs, and each needs one of its own: '
                'request as many GPUs per machine as processes (GPUS_PER_NODE).'
            )
        return
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    try:
        distributed.init_process_group('gloo', timeout=None if timeout is None else timedelta(seconds=timeout))
    except (distributed.DistError, ValueError) as error:
        where = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
        raise UserError(f'The processes of the run did not meet at {where}: {reason(error)}') from error
