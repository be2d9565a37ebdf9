"""How long a training step took in runs that were logged."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from ..engine.scalars import read_scalars
from ..engine.settings import read_settings
from ..errors import UserError

LOG, SETTINGS = 'vis_data/scalars.json', 'vis_data/config.py'

LONGEST = 1e6  # seconds that a step may have taken


def seconds_of_a_step(folder: Path, batch: int, accumulated: int) -> float | None:
    """Return the median seconds of one GPU's batch in all runs below a folder; None where none was logged.

    Args:
        folder: of an experiment's runs.
        batch: samples a step on one GPU; runs with another are left out.
        accumulated: steps whose gradients are added up; with the batch, it tells on how many GPUs a recipe ran.

    Raises:
        UserError: for a corrupt log.
    """
    seconds = []
    for log in sorted(folder.rglob(LOG)):
        if log.is_file() and _split(log.parents[1] / SETTINGS) == (batch, accumulated):
            seconds += [t for _, line in read_scalars(log) if 'loss' in line and _is_time(t := line.get('time'))]
    return median(seconds) if seconds else None


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < LONGEST


def _split(settings: Path) -> tuple[int, int] | None:
    """Return a run's batch on one GPU and the steps it accumulates; None where its settings cannot be read."""
    try:
        parts = read_settings(settings.read_text(encoding='utf-8', errors='replace'))
        return parts['train_dataloader']['batch_size'], parts['optim_wrapper'].get('accumulative_counts', 1)
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return None
