"""Several ranks on this machine: forked ones, which cost no imports, and whole commands; none outlives its test."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from small_experiment import REPO


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def over_ranks(world: int, function: Callable[[int], Any], timeout: float = 600) -> list[Any]:
    """What ``function(rank)`` gives in each of ``world`` processes, which find torchrun's variables set.

    A rank that raises gives its traceback, as text; one that dies without a word None.
    """
    context, port = multiprocessing.get_context('fork'), free_port()
    said = context.Queue()
    processes = [context.Process(target=_one, args=(r, world, port, function, said)) for r in range(world)]
    for process in processes:
        process.start()
    results, deadline = {}, time.monotonic() + timeout
    while len(results) < world and (alive := any(p.is_alive() for p in processes) or not said.empty()):
        with contextlib.suppress(queue.Empty):
            rank, result = said.get(timeout=0.2)
            results[rank] = result
        if time.monotonic() > deadline:
            break
    for process in processes:
        process.join(1)
        process.kill()
        process.join()
    assert time.monotonic() < deadline, f'the ranks hang: {results} {alive}'
    return [results.get(rank) for rank in range(world)]


def _one(rank: int, world: int, port: int, function: Callable[[int], Any], said: Any) -> None:
    place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    os.environ.update({k: str(v) for k, v in place.items()})
    try:
        result = function(rank)
    except BaseException:
        result = traceback.format_exc()
    said.put((rank, result))


def commands(
    each: Sequence[tuple[Sequence[str], Mapping[str, str]]], logs: Path, timeout: float = 600
) -> list[tuple]:
    """Run commands side by side in the repository: the exit status and the output of each.

    Args:
        each: arguments, and what is added to the environment.
        logs: a folder for the outputs.
        timeout: seconds after which all of them are killed, their children included.
    """
    running = []
    try:
        for number, (arguments, extra) in enumerate(each):
            with open(logs / f'{number}.txt', 'w') as log:
                options = dict(cwd=REPO, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
                running.append(subprocess.Popen(arguments, env={**os.environ, **extra}, **options))
        deadline = time.monotonic() + timeout
        for process in running:
            process.wait(max(0.1, deadline - time.monotonic()))
    finally:
        for process in running:
            kill_all(process.pid)
            process.wait()
    return [(p.returncode, (logs / f'{n}.txt').read_text()) for n, p in enumerate(running)]


def kill_all(pid: int) -> None:
    """Kill a process with all that it started; torchrun's workers have sessions of their own."""
    parents = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(')')[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
