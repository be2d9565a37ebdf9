"""What a run is doing, read from its folder."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..engine.run_folder import LOGS
from ..files import from_json
from .attempt import FAILED as HAS_FAILED
from .attempt import RUNNING as HAS_BEGUN
from .attempt import read_attempt
from .claim import in_use

DONE, RUNNING, WAITING, INTERRUPTED, FAILED = 'done', 'running', 'waiting', 'interrupted', 'failed'
STATES = (RUNNING, FAILED, INTERRUPTED, WAITING, DONE)
TAIL = 20_000  # bytes of a log's end that are looked at


@dataclass(frozen=True)
class RunStatus:
    """A run as it was seen.

    Args:
        name: the run's.
        state: one of :data:`STATES`.
        epoch: the epoch that it is in, or has finished; 0 before the first.
        top1: in percent: of its test when done, else of its last validation; None if it has none.
        loss: the last one logged, or None.
        reason: why it failed.
    """

    name: str
    state: str
    epoch: int = 0
    top1: float | None = None
    loss: float | None = None
    reason: str = ''

    @property
    def detail(self) -> str:
        """Return what there is to say beside the state."""
        if self.state == DONE:
            return '' if self.top1 is None else f'top-1 {self.top1:.2f}'
        parts = [f'epoch {self.epoch}'] * bool(self.epoch)
        parts += [] if self.loss is None else [f'loss {self.loss:.3g}']
        parts += [] if self.top1 is None else [f'top-1 in validation {self.top1:.2f}']
        return self.reason if self.state == FAILED else ', '.join(parts)


def look(name: str, folder: Path, done: bool, top1: float | None = None) -> RunStatus:
    """Return what a run is doing.

    Args:
        name: for people.
        folder: of the run.
        done: whether it has its result, here or elsewhere.
        top1: of the result, in percent; None where that is elsewhere.
    """
    if done:
        return RunStatus(name, DONE, top1=top1)
    if in_use(folder):
        return RunStatus(name, RUNNING, **_progress(folder))
    last = read_attempt(folder)
    if last and last.state == HAS_FAILED:
        return RunStatus(name, FAILED, reason=last.reason)
    return RunStatus(name, INTERRUPTED if last and last.state == HAS_BEGUN else WAITING, **_progress(folder))


def _progress(folder: Path) -> dict[str, float]:
    """Return the epoch, the loss and the validation's top-1 that a run logged last."""
    seen: dict[str, float] = {}
    logs = [p / 'vis_data/scalars.json' for p in sorted(folder.glob('*')) if LOGS.fullmatch(p.name)]
    for line in (line for log in logs[-3:] for line in _end_of(log)):  # one that has just begun holds nothing
        with suppress(ValueError):
            logged = from_json(line)
            named = dict(epoch='epoch', loss='loss', top1='acc/top1')
            values = {k: logged.get(v) for k, v in named.items()} if isinstance(logged, dict) else {}
            seen |= {k: v for k, v in values.items() if isinstance(v, (int, float)) and abs(v) < 1e9}
    return seen


def _end_of(file: Path) -> list[bytes]:
    """Return the last lines of a file; a first one that is cut off cannot be read anyway."""
    if not file.is_file():
        return []
    with open(file, 'rb') as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
        return stream.read().splitlines()
