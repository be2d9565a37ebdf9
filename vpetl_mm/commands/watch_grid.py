"""Show what the runs of a grid are doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ..campaign.page import terminal_table, write_page
from ..campaign.watch import DONE, FAILED, RunStatus, look
from ..files import os_errors_explained
from .grid import Run


def watch(runs: Sequence[Run], page: Path, pause: float = 5.0) -> None:
    """Show what each run is doing, on a terminal until all are done or failed, and write it as a page.

    Args:
        runs: from :func:`plan`.
        page: the HTML file.
        pause: seconds between two looks. Defaults to 5.
    """
    console = Console()

    def now() -> list[RunStatus]:
        statuses = [_seen(run) for run in runs]
        with os_errors_explained():
            write_page(statuses, page)
        return statuses

    statuses = now()
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while not all(s.state in (DONE, FAILED) for s in statuses):
                live.update(terminal_table(statuses, max(5, console.height - 4)), refresh=True)
                time.sleep(pause)
                statuses = now()
    console.print(terminal_table(statuses, len(statuses)))
    print(f'The page is {page}.')


def _seen(run: Run) -> RunStatus:
    result = run.result()
    return look(run.title, run.work_dir, run.finished or result is not None, result and result.top1)
