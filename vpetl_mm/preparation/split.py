"""Draws a validation or test part from a list."""

from __future__ import annotations

from collections import defaultdict

from ..datasets.holdout import held_out_indices
from ..datasets.list_file import Sample
from ..errors import UserError

WHOLE = 'vpetl_mm.datasets.holdout.held_out_indices(len(trainval), fraction, seed), as holdout.fraction draws it'
PER_CLASS = 'vpetl_mm.datasets.holdout.held_out_indices(len(class), fraction, [seed, label]), at most all but one'
GIVEN = 'the lists of the source'

Parts = tuple[list[Sample], list[Sample]]


def _parts(samples: list[Sample], out: set[int]) -> Parts:
    return [s for i, s in enumerate(samples) if i not in out], [s for i, s in enumerate(samples) if i in out]


def hold_out(samples: list[Sample], fraction: float, seed: int) -> Parts:
    """Return the rest and the held-out part, exactly as ``holdout.fraction`` draws it from the same list.

    Raises:
        UserError: if nothing would be left.
    """
    rest, out = _parts(samples, held_out_indices(len(samples), fraction, seed))
    if not rest:
        raise UserError(f'Holding {fraction} of {len(samples)} samples out leaves nothing to train on.')
    return rest, out


def hold_out_per_class(samples: list[Sample], fraction: float, seed: int) -> Parts:
    """Return the rest and the held-out part: the same share of every class, but never all of its samples.

    Both keep the order of the list.

    Raises:
        UserError: if no class has two samples.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        members[sample.label].append(index)
    out: set[int] = set()
    for label, indices in members.items():
        drawn = sorted(held_out_indices(len(indices), fraction, [seed, label]))[: len(indices) - 1]
        out |= {indices[i] for i in drawn}
    if not out:
        raise UserError(
            'No class has a sample to spare for validation or testing: each needs three, or give your own lists '
            '(train.csv, val.csv, test.csv).'
        )
    return _parts(samples, out)
