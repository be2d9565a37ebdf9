"""A Slurm of its own on this machine: controller, one node and munge in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# ends the daemons of a folder when the process that started them was killed before it could
GUARD = """\
while kill -0 "$1"; do [ -d "$2" ] || exit; sleep 1; done
for name in slurmd slurmctld munge; do kill -KILL $(cat "$2/$name.pid"); done
rm -rf "$2"
"""
PROGRAMS = ('slurmctld', 'slurmd', 'munged', 'sbatch', 'srun', 'squeue', 'scontrol')
# SlurmdTimeout: a node that is silent for so long is lost. KillWait: between SIGTERM and SIGKILL. cred_expire: a
# requeued job waits for so long before it starts again (120 seconds by default).
CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SlurmdTimeout=2
MessageTimeout=2
TCPTimeout=1
KillWait=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={host} MaxTime=10 State=UP
"""


class Cluster:
    """A running Slurm; its commands find it by ``SLURM_CONF``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def ask(*command: str) -> str:
        """Return what one of Slurm's commands prints."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f'{" ".join(command)}: {done.stderr.strip()}')
        return done.stdout.strip()

    def start_node(self) -> None:
        """Start the node's daemon and wait until jobs can run there."""
        subprocess.run(['slurmd'], check=True, timeout=60)
        wait_for(
            lambda: self.ask('sinfo', '--noheader', '--format=%t', '--partition=main') in ('idle', 'mix', 'alloc')
        )

    def kill_node(self) -> None:
        """Kill the node's daemon and its jobs at once, as the loss of its power does."""
        end(self.folder / 'slurmd.pid', signal.SIGKILL)
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[int]:
        """Return the processes of the jobs, those that guard them first."""
        steps, others = [], []
        for process in Path('/proc').glob('[0-9]*'):
            with suppress(OSError):
                environ = (process / 'environ').read_bytes().split(b'\0')
                if f'SLURM_CONF={self.folder}/slurm.conf'.encode() in environ:
                    guards = (process / 'comm').read_text().startswith('slurmstepd')
                    of_job = any(part.startswith(b'SLURM_JOB_ID=') for part in environ)
                    (steps if guards else others if of_job else []).append(int(process.name))
        return steps + others

    def log(self) -> str:
        """Return the ends of the daemons' logs."""
        return '\n'.join(f'{log.name}:\n{log.read_text()[-3000:]}' for log in sorted(self.folder.glob('*.log')))


def why_not() -> str | None:
    """Return why there can be no Slurm here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f'{missing[0]} is not installed (apt-get install slurmctld slurmd slurm-client munge)'
    return None if os.geteuid() == 0 else 'the daemons of Slurm need root'


@contextmanager
def running_slurm() -> Iterator[Cluster]:
    """Start Slurm, set ``SLURM_CONF``, and end both at the end."""
    folder = Path(tempfile.mkdtemp(prefix='slurm', dir='/tmp'))  # a socket's path has at most 107 characters
    before = os.environ.get('SLURM_CONF')
    try:
        folder.chmod(0o755)
        guard = ['bash', '-c', GUARD, 'guard', str(os.getpid()), str(folder)]
        subprocess.Popen(guard, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _start(folder)
        yield Cluster(folder)
    finally:
        _stop(folder)
        if before is None:
            os.environ.pop('SLURM_CONF', None)
        else:
            os.environ['SLURM_CONF'] = before
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> None:
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    host = socket.gethostname().partition('.')[0]
    (folder / 'slurm.conf').write_text(CONF.format(folder=folder, host=host, ports=_free_ports(2)))
    for number in range(4):  # what Slurm takes for GPUs
        (folder / f'gpu{number}').touch()
    (folder / 'gres.conf').write_text(f'Name=gpu File={folder}/gpu[0-3]\n')
    os.environ['SLURM_CONF'] = str(folder / 'slurm.conf')
    (folder / 'munge.key').write_bytes(os.urandom(1024))
    (folder / 'munge.key').chmod(0o400)
    files = {'socket': 'socket', 'key-file': 'key', 'pid-file': 'pid', 'log-file': 'log', 'seed-file': 'seed'}
    munge = [f'--{option}={folder}/munge.{ending}' for option, ending in files.items()]
    subprocess.run(['munged', *munge], check=True, timeout=60)
    subprocess.run(['slurmctld'], check=True, timeout=60)
    wait_for(lambda: 'is UP' in Cluster.ask('scontrol', 'ping'))
    Cluster(folder).start_node()


def _stop(folder: Path) -> None:
    with suppress(RuntimeError, subprocess.TimeoutExpired, OSError):
        Cluster.ask('scancel', '--user=root', '--signal=KILL', '--full')
        Cluster.ask('scancel', '--user=root')
        wait_for(lambda: not Cluster.ask('squeue', '--noheader'), 10)
    for name in ('slurmd', 'slurmctld', 'munge'):
        end(folder / f'{name}.pid', signal.SIGTERM)


def end(pid_file: Path, number: int) -> None:
    """Send a daemon a signal and wait for its end; kill it after 10 seconds."""
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    for sent in (number, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, sent)
        with suppress(TimeoutError):
            return wait_for(lambda: not _runs(pid), 10)


def _runs(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(('', 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something has happened.

    Raises:
        TimeoutError: when it has not after so many seconds.
    """
    end_at = time.monotonic() + seconds
    while True:
        with suppress(RuntimeError):
            if happened():
                return
        if time.monotonic() > end_at:
            raise TimeoutError(f'after {seconds} seconds it has not happened')
        time.sleep(0.1)
