"""The predictions of a test, read from their CSV file."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ...engine.accuracy import COLUMNS
from ...errors import UserError


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for N samples of C classes.

    Args:
        files: the samples' files, '' for images out of an array.
        labels: their true classes, [N].
        predicted: the predicted classes, [N]; -1 for a sample that could not be read, which counts as wrong.
        probabilities: of each class, [N, C].
        from_logits: the file holds logits, whose softmax the probabilities are.
    """

    files: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    from_logits: bool

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.probabilities.shape[1]

    @property
    def right(self) -> np.ndarray:
        """Whether each sample was classified correctly, [N]."""
        return self.predicted == self.labels

    @property
    def readable(self) -> np.ndarray:
        """Whether each sample could be read, [N]."""
        return self.predicted >= 0

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, [N]."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted]

    def within(self, k: int) -> int:
        """Return how many samples have their class among the ``k`` most probable ones."""
        of_label = self.probabilities[np.arange(len(self.labels)), self.labels]
        above = (self.probabilities > of_label[:, None]).sum(1)
        return int((self.readable & (above < k)).sum())


def read_predictions(file: Path) -> Predictions:
    """Read the CSV file that :class:`PETLAccuracy` writes.

    Its scores are logits (of heads that average the logits of several views) or probabilities (of image heads, or
    with ``average_clips='prob'``); the latter are not negative, and add up to 1.

    Raises:
        UserError: when it is missing, broken, or another kind of file.
    """
    if not file.is_file():
        raise UserError(f'The predictions {file} do not exist; test the run again.')
    try:
        with open(file, newline='', encoding='utf-8', errors='surrogateescape') as stream:
            return _parsed(csv.reader(stream))
    except (csv.Error, ValueError) as error:
        raise UserError(f'The predictions {file} are broken ({error}); test the run again.') from error
    except OSError as error:
        raise UserError(f'The predictions {file} cannot be read ({error.strerror}).') from error


def _parsed(rows: csv.reader) -> Predictions:
    if tuple(next(rows, ())) != COLUMNS:
        raise ValueError(f'their first line is not {",".join(COLUMNS)}')
    files, labels, predicted, scores = [], [], [], []
    for row in rows:
        if len(row) != len(COLUMNS):
            raise ValueError(f'line {rows.line_num} has {len(row)} columns')
        file, label, prediction, readable, text = row
        files.append(file)
        labels.append(int(label))
        predicted.append(int(prediction) if readable == '1' else -1)
        scores.append(np.array(text.split(), dtype=np.float32))
        if len(scores[-1]) != len(scores[0]) or not len(scores[0]):
            raise ValueError(f'line {rows.line_num} has {len(scores[-1])} scores')
    if not files:
        raise ValueError('they are empty')
    values, labels, predicted = np.stack(scores), np.array(labels), np.array(predicted)
    classes = values.shape[1]
    if not (0 <= labels.min() <= labels.max() < classes and -1 <= predicted.min() <= predicted.max() < classes):
        raise ValueError('a class is outside the scores')
    if not np.isfinite(values).all():
        raise ValueError('a score is not finite')
    # six digits of each are written
    probable = values.min() >= 0 and np.allclose(values.sum(1), 1, atol=1e-3)
    return Predictions(files, labels, predicted, values if probable else softmax(values, axis=1), not probable)
