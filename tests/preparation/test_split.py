"""The two ways of drawing a part out of a list."""

from __future__ import annotations

from collections import Counter

import pytest

from vpetl_mm import UserError
from vpetl_mm.preparation.lists import Sample
from vpetl_mm.preparation.split import hold_out, hold_out_per_class

# 20 of class 0, 20 of class 1, 3 of class 2, 1 of class 3, one after the other in the list
SAMPLES = [Sample(f'{i}', label) for i, label in enumerate([0, 1] * 20 + [2, 2, 2, 3])]


def test_the_whole_list_is_drawn_from_as_in_training():
    # the figures of tests/datasets/test_holdout.py
    rest, out = hold_out(SAMPLES[:40], 0.1, 0)
    assert [int(s.path) for s in out] == [4, 11, 24, 27] and sorted(rest + out) == sorted(SAMPLES[:40])


@pytest.mark.parametrize(
    ('share', 'counts'),
    [(0.1, {0: 2, 1: 2, 2: 1}), (0.5, {0: 10, 1: 10, 2: 2}), (0.99, {0: 19, 1: 19, 2: 2})],
)
def test_every_class_gives_its_share_and_keeps_one(share, counts):
    rest, out = hold_out_per_class(SAMPLES, share, 0)
    assert Counter(s.label for s in out) == counts and {s.label for s in rest} == {0, 1, 2, 3}
    assert not {*rest} & {*out} and {*rest, *out} == {*SAMPLES}
    order = [SAMPLES.index(s) for s in rest]
    assert order == sorted(order)


def test_classes_of_the_same_size_and_other_seeds_have_draws_of_their_own():
    def places(seed, label):
        members = [s for s in SAMPLES if s.label == label]
        return [members.index(s) for s in hold_out_per_class(SAMPLES, 0.5, seed)[1] if s.label == label]

    assert places(0, 0) == places(0, 0) != places(0, 1) and places(0, 0) != places(1, 0)


def test_what_leaves_nothing_is_refused():
    with pytest.raises(UserError, match='leaves nothing to train on'):
        hold_out(SAMPLES[:1], 0.5, 0)
    with pytest.raises(UserError, match='No class has a sample to spare'):
        hold_out_per_class(SAMPLES[-1:], 0.5, 0)
