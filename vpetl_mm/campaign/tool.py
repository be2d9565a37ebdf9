"""Call a command line from a job."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vpetl_cli.shipped import TOOLS


def call(command: Sequence[str]) -> int:
    """Run a command line and return its exit status, below zero for the signal that ended it.

    A tool in ``tools/`` runs in a fork of this process, which has imported what it needs; others as usual.
    """
    if command[0] == sys.executable and Path(command[1]).parent == TOOLS:
        process = multiprocessing.get_context('fork').Process(target=_run_tool, args=(list(command[1:]),))
        process.start()
        process.join()
        return process.exitcode
    return subprocess.run(command, env=_environment(), check=False).returncode


def _environment() -> dict[str, str]:
    # dist_train.sh calls "python", which must be this one
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    with socket.socket() as free:  # for the processes of one run to meet: several runs may share this machine
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    return {'PORT': port, 'PET_MASTER_PORT': port, **os.environ, 'PATH': path}


def _run_tool(argv: list[str]) -> None:
    sys.argv = argv
    runpy.run_path(argv[0], run_name='__main__')
