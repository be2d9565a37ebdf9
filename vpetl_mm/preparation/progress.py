"""Warnings, and a progress bar on a terminal or, elsewhere, a line every minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import tellable

EVERY = 60  # seconds between two lines where there is no terminal


def warn(text: str) -> None:
    """Print a warning."""
    print(f'warning: {tellable(text)}', file=sys.stderr)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar named ``what``; the function that this yields adds to the part of ``total`` that is done."""
    start = told = time.monotonic()
    terminal = sys.stderr.isatty()

    def advance(amount: int) -> None:
        nonlocal told
        bar.advance(task, amount)
        now, done = time.monotonic(), bar.tasks[0].completed
        if not terminal and now - told > EVERY and done:
            told = now
            left = (now - start) * (total - done) / done / 60
            print(f'{what}: {done / total:.0%}, about {left:,.0f} minutes left', file=sys.stderr, flush=True)

    columns = (TextColumn('{task.description}'), BarColumn(), TaskProgressColumn())
    time_left = TimeRemainingColumn(elapsed_when_finished=True)
    with Progress(*columns, time_left, console=Console(stderr=True), disable=not terminal) as bar:
        task = bar.add_task(what, total=total)
        yield advance
    took = time.monotonic() - start
    if not terminal and took > 2:
        print(f'{what}: {took:.0f} s', file=sys.stderr)
