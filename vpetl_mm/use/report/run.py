"""Reads a test and its run from the run's folder; nothing there is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ...engine.checkpoint import read_checkpoint
from ...engine.entries import innermost
from ...engine.record import Record, read_record
from ...engine.settings import read_settings
from ...errors import UserError
from .curves import Curves, log_folders, read_curves_of
from .predictions import Predictions, read_predictions

MOST_BYTES = 1 << 20  # of a list of class names, or of a log's beginning
ENVIRONMENT = re.compile(r'^    (?! )([^:]{1,60}): ?(.{1,200})$', re.M)

SAYS_LITTLE = ('PyTorch compiling details', 'MUSA available', 'mp_cfg', 'dist_cfg', 'numpy_random_seed')


@dataclass(frozen=True)
class Tested:
    """A test and the run that led to it.

    Args:
        result: the file of its record.
        record: the scores and what was tested.
        predictions: of every sample.
        training: the settings that the run trained with; {} if the folder does not say.
        testing: those that it was tested with, likewise.
        curves: of the training; empty if the folder has none.
        environment: versions and machine, by name, as mmengine logged them.
    """

    result: Path
    record: Record
    predictions: Predictions
    training: Mapping[str, Any]
    testing: Mapping[str, Any]
    curves: Curves
    environment: Mapping[str, str]

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The settings of the data set that was tested on."""
        return _dataset(self.testing)

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, or their numbers; this reads the file of names that the config gives."""
        checkpoint = self.result.with_name(Path(self.record.checkpoint).name)
        return _classes(checkpoint, self.testing, self.predictions.classes)


def read_tested(result: Path, predictions: Path) -> Tested:
    """Read a test and its run.

    Args:
        result: ``result.json``, in the folder of the run.
        predictions: of the same test.

    Raises:
        UserError: when the record or the predictions are missing or broken, or do not belong together, and for
            corrupt logs.
    """
    record, found = read_record(result), read_predictions(predictions)
    top1 = 100 * found.right.mean()
    if len(found.labels) != record.samples or abs(top1 - record.top1) > 1e-3:
        raise UserError(
            f'{predictions} does not belong to {result}: it has {len(found.labels):,} samples and top-1 {top1:.2f}, '
            f'and the result has {record.samples:,} and {record.top1:.2f}; test the run again.'
        )
    logs = _until(log_folders(result.parent), record.finished)
    training, testing = _settings(logs, 'train_dataloader'), _settings(logs, 'test_dataloader')
    return Tested(result, record, found, training, testing, read_curves_of(result.parent), _environment(logs))


def _dataset(testing: Mapping[str, Any]) -> Mapping[str, Any]:
    return innermost(_at(testing, 'test_dataloader', 'dataset'))


def _at(settings: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        settings = settings.get(key)
        if not isinstance(settings, Mapping):
            return {}
    return settings


def _until(logs: Sequence[Path], finished: str) -> list[Path]:
    """Return the logs that began before the test had ended, the newest first; their names have no time zone."""
    end = f'{datetime.fromisoformat(finished):%Y%m%d_%H%M%S}'
    return [log for log in reversed(logs) if log.name <= end]


def _settings(logs: Sequence[Path], part: str) -> dict[str, Any]:
    """Return the settings of the newest log that has a ``part`` of its config; {} without one."""
    for log in logs:
        file = log / 'vis_data/config.py'
        with suppress(UserError, OSError):  # a report can do without
            if file.is_file() and file.stat().st_size <= MOST_BYTES:
                settings = read_settings(file.read_text(encoding='utf-8', errors='replace'))
                if isinstance(settings.get(part), Mapping):
                    return settings
    return {}


def _environment(logs: Sequence[Path]) -> dict[str, str]:
    """Return what mmengine wrote about the system at the start of the newest log."""
    for log in logs:
        file = log / f'{log.name}.log'
        with suppress(OSError):
            if file.is_file():
                with open(file, encoding='utf-8', errors='replace') as stream:
                    text = stream.read(MOST_BYTES)
                block = text.partition('System environment:')[2].partition('\n---')[0]
                return {k: v for k, v in ENVIRONMENT.findall(block) if v.strip() and k not in SAYS_LITTLE}
    return {}


def _classes(checkpoint: Path, testing: Mapping[str, Any], count: int) -> list[str]:
    """Return the names of the classes: of the checkpoint, of the config, or their numbers."""
    names: Any = None
    with suppress(UserError):
        if checkpoint.is_file():
            names = read_checkpoint(checkpoint)['meta'].get('dataset_meta', {}).get('classes')
    dataset = _dataset(testing)
    for given in (names, dataset.get('classes'), _at(dataset, 'metainfo').get('classes')):
        found = _names(given)
        if len(found) == count:
            return found
    return [f'class {c}' for c in range(count)]


def _names(given: Any) -> list[str]:
    """Return class names, from a list or from a file with a line for each."""
    if isinstance(given, str):
        file = Path(given)
        with suppress(OSError, ValueError):  # also a name with a zero byte
            if file.is_file() and file.stat().st_size <= MOST_BYTES:
                return [n.strip() for n in file.read_text('utf-8', errors='replace').splitlines() if n.strip()]
        return []
    return [str(name) for name in given] if isinstance(given, (list, tuple)) else []
