"""A progress bar on a terminal, and where there is none one line at the end of what took long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from .lists import tellable


def warn(text: str) -> None:
    """Tell the user something that does not end the command."""
    print(f'warning: {tellable(text)}', file=sys.stderr)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar named ``what``; the function that it gives adds to what is done, out of ``total``."""
    start = time.monotonic()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
    took = time.monotonic() - start
    if not sys.stderr.isatty() and took > 2:
        print(f'{what}: {took:.0f} s', file=sys.stderr)
