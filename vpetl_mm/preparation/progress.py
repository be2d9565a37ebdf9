"""A progress bar on a terminal, and where there is none a line now and then of what takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from ..errors import tellable

EVERY = 60  # seconds from one line to the next, where there is no terminal


def warn(text: str) -> None:
    """Tell the user something that does not end the command."""
    print(f'warning: {tellable(text)}', file=sys.stderr)


class TimeLeft(ProgressColumn):
    """The time that is left, or that it took."""

    def render(self, task: Task) -> Text:
        """Such as ``0:05:04 left``, ``in 0:07:12``, or nothing before a first step is done."""
        seconds = task.finished_time if task.finished else task.time_remaining
        if seconds is None:
            return Text('')
        time = timedelta(seconds=int(seconds))
        return Text(f'in {time}' if task.finished else f'{time} left')


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar named ``what``; the function that it gives adds to what is done, out of ``total``."""
    start = told = time.monotonic()
    terminal, done = sys.stderr.isatty(), 0

    def advance(amount: int) -> None:
        nonlocal told, done
        bar.advance(task, amount)
        done += amount
        now = time.monotonic()
        if not terminal and now - told > EVERY and done:
            told = now
            left = (now - start) * (total - done) / done / 60
            print(f'{what}: {done / total:.0%}, about {left:,.0f} minutes left', file=sys.stderr, flush=True)

    columns = (TextColumn('{task.description}'), BarColumn(), TaskProgressColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), disable=not terminal) as bar:
        task = bar.add_task(what, total=total)
        yield advance
    took = time.monotonic() - start
    if not terminal and took > 2:
        print(f'{what}: {took:.0f} s', file=sys.stderr)
