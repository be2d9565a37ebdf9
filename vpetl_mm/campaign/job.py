"""A job: something to do once, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOG = 'run.log'  # in a job's folder: what it printed


@dataclass(frozen=True)
class Job:
    """Something to do once, by whatever process comes to it first; it may be interrupted anywhere.

    Args:
        name: of the job alone, for messages.
        folder: of the job alone.
        work: does it. Can be pickled; looks into the folder and goes on from what an earlier attempt left; raises
            :class:`UserError` where that cannot help.
        done: whether it has been done, by any process. Can be pickled.
    """

    name: str
    folder: Path
    work: Callable[[], None]
    done: Callable[[], bool]
