"""The prediction for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...preparation.workers import Failed
from .reader import Sample


@dataclass(frozen=True)
class Prediction:
    """The scores of one input, or why there are none.

    Args:
        input: its path; None for an array.
        read: the input as it was read, or why it was not.
        scores: of every class, as ``tools/test.py`` writes them: the logits' mean over the views if the head
            averages logits, probabilities otherwise. Empty where the input could not be read.
        probabilities: of every class; they sum to 1.
    """

    input: str | None
    read: Sample | Failed
    scores: np.ndarray
    probabilities: np.ndarray

    @property
    def error(self) -> str:
        """Why there is no prediction; empty where there is one."""
        return self.read.reason if isinstance(self.read, Failed) else ''

    def as_dict(self, classes: Sequence[str] | None, topk: int) -> dict[str, Any]:
        """Return the prediction as a dict, for JSON.

        It has ``input`` and ``error``, or ``input``, ``label``, ``name``, ``score``, ``probability`` and ``topk``.

        Args:
            classes: their names; without them a class is named by its number.
            topk: how many of the likeliest classes ``topk`` lists, each with label, name, score and probability.
        """
        if self.error:
            return dict(input=self.input, error=self.error)
        order = np.argsort(-self.scores, kind='stable')[:topk]
        top = [
            dict(
                label=int(label),
                name=classes[label] if classes else str(label),
                score=float(self.scores[label]),
                probability=float(self.probabilities[label]),
            )
            for label in order
        ]
        return dict(input=self.input, **top[0], topk=top)
