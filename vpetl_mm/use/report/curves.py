"""How a run's training went: loss, learning rate and validation, from mmengine's logs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np

from ...engine.run_folder import LOGS
from ...engine.scalars import read_scalars

MOST = 300  # points of a curve


@dataclass
class Curves:
    """Values by iteration, in order: the training loss, the learning rate, top-1 in percent on what was held out."""

    loss: list[tuple[float, float]] = field(default_factory=list)
    lr: list[tuple[float, float]] = field(default_factory=list)
    top1: list[tuple[float, float]] = field(default_factory=list)
    per_epoch: float = 1.0  # iterations

    def thinned(self, name: str) -> tuple[list[float], list[float]]:
        """Return a curve by epoch, at most 300 points, each the mean of its neighbours."""
        points = np.array(getattr(self, name), dtype=float).reshape(-1, 2)
        parts = np.array_split(points, min(MOST, len(points)) or 1)
        means = np.array([part.mean(0) for part in parts if len(part)]).reshape(-1, 2)
        return (means[:, 0] / self.per_epoch).tolist(), means[:, 1].tolist()

    def __bool__(self) -> bool:
        return bool(self.loss or self.top1)


def read_curves_of(folder: Path) -> Curves:
    """Read the curves of the run in a folder; where a resumed run logged an iteration twice, the later one counts.

    Raises:
        UserError: for a corrupt log.
    """
    loss, lr, top1, epochs = {}, {}, {}, {}
    for log in log_folders(folder):
        file = log / 'vis_data/scalars.json'
        if not file.is_file():  # a pipe would never end
            continue
        for _, scalars in read_scalars(file):
            step = scalars.get('step')
            if not isinstance(step, int) or isinstance(step, bool) or step < 0:
                continue
            for name, into in (('loss', loss), ('lr', lr)):
                if _finite(scalars.get(name)):
                    into[step] = float(scalars[name])
            if _finite(scalars.get('epoch')) and scalars['epoch'] > 0:
                epochs[step] = scalars['epoch']
            if _finite(scalars.get('acc/top1')):
                top1[step] = float(scalars['acc/top1'])
    per_epoch = max((step / epoch for step, epoch in epochs.items()), default=1.0) or 1.0
    validated = [(epoch * per_epoch, value) for epoch, value in sorted(top1.items())]
    return Curves(sorted(loss.items()), sorted(lr.items()), validated, per_epoch)


def log_folders(folder: Path) -> list[Path]:
    """Return the folders of mmengine's logs, the oldest first."""
    return sorted(p for p in folder.glob('*_*') if LOGS.fullmatch(p.name) and p.is_dir() and not p.is_symlink())


def _finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
