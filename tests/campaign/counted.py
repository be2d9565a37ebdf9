"""A job that counts its steps in a file, so that a step done twice, or not at all, shows."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from vpetl_mm.campaign.job import Job
from vpetl_mm.errors import UserError


def work(folder: Path, steps: int, pause: float, fail: str) -> None:
    """Do the steps that are left, a line of their number each; then fail, if so told."""
    with open(folder / 'attempts', 'a') as stream:
        stream.write('.')
    for step in range(len(done_steps(folder)), steps):
        time.sleep(pause)
        with open(folder / 'steps', 'a') as stream:
            stream.write(f'{step}\n')
    if fail:
        raise UserError(fail)
    (folder / 'result').touch()


def done_steps(folder: Path) -> list[str]:
    """The numbers of the steps that were done, in their order."""
    return (folder / 'steps').read_text().split() if (folder / 'steps').is_file() else []


def is_done(folder: Path) -> bool:
    """Whether all steps were done, and nothing failed."""
    return (folder / 'result').is_file()


def counted(root: Path, name: str, steps: int = 3, pause: float = 0.1, fail: str = '') -> Job:
    """A job of so many steps, ``pause`` seconds each."""
    folder = root / name
    return Job(name, folder, partial(work, folder, steps, pause, fail), partial(is_done, folder))
