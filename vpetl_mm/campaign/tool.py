"""Call a command line from a job."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from vpetl_cli.shipped import TOOLS


def call(command: Sequence[str]) -> int:
    """Run a command line and return its exit status, below zero for the signal that ended it.

    A tool in ``tools/`` runs in a fork of this process, which has imported what it needs; others as usual, and so do
    all where there is a GPU, as a fork cannot use it. What runs ends with this process, even if that is killed.
    """
    parent = os.getpid()
    if command[0] == sys.executable and Path(command[1]).parent == TOOLS and not torch.cuda.is_available():
        process = multiprocessing.get_context('fork').Process(target=_run_tool, args=(list(command[1:]), parent))
        process.start()
        process.join()
        return process.exitcode
    ends = partial(_end_with, parent)
    return subprocess.run(command, env=_environment(), check=False, preexec_fn=ends).returncode


def _end_with(parent: int) -> None:
    """Let the system end this process when its parent has gone; only Linux can."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _environment() -> dict[str, str]:
    # dist_train.sh calls "python", which must be this one
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    with socket.socket() as free:  # for the processes of one run to meet: several runs may share this machine
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    return {'PORT': port, 'PET_MASTER_PORT': port, **os.environ, 'PATH': path}


def _run_tool(argv: list[str], parent: int) -> None:
    _end_with(parent)
    sys.argv = argv
    runpy.run_path(argv[0], run_name='__main__')
