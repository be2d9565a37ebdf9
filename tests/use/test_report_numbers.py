"""The numbers of a report, against published examples and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from synthetic import leave_test, many

from vpetl_mm import UserError
from vpetl_mm.engine.accuracy import PETLAccuracy
from vpetl_mm.use.report.groups import groups_of
from vpetl_mm.use.report.numbers import Pair, calibration, confused_pairs, confusions, mcnemar, mean_share, share
from vpetl_mm.use.report.predictions import Predictions, read_predictions


@pytest.mark.parametrize(
    ('hits', 'of', 'low', 'high'),
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(hits, of, low, high):
    found = share(hits, of)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.005)
    assert (found.percent, found.hits, found.of) == (pytest.approx(100 * hits / of), hits, of)


def test_the_mean_over_classes_has_the_interval_of_independent_binomials():
    """Var(mean) = sum p (1 - p) / n / C^2, which the normal interval of many samples follows."""
    shares = [share(300, 1000), share(700, 1000), share(900, 1000)]
    found, deviation = mean_share(shares), np.sqrt(sum(p * (1 - p) / 1000 for p in (0.3, 0.7, 0.9))) / 3
    assert found.percent == pytest.approx(100 * (0.3 + 0.7 + 0.9) / 3)
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert end == pytest.approx(found.percent + sign * 196 * deviation, abs=0.15)


@pytest.mark.parametrize(
    ('first', 'second', 'p', 'how'),
    [
        (6, 16, 0.0525, 'exact'),  # 2 P(X <= 6 | 22, 1/2) = 2 * 110056 / 2^22
        (5, 12, 0.1435, 'exact'),
        (0, 0, 1.0, 'exact'),
        (59, 121, 5.450e-06, 'chi-square 20.67'),  # 61^2 / 180
        (144, 256, 2.855e-08, 'chi-square 30.80'),  # Bland, severe colds at 12 and at 14: 111^2 / 400
    ],
)
def test_mcnemars_test_is_the_worked_example(first, second, p, how):
    for one, two in ((first, second), (second, first)):
        found = mcnemar(one, two)
        assert found.p == pytest.approx(p, rel=2e-3) and found.how.startswith(how)


def test_the_calibration_error_is_the_one_by_hand():
    """Two bins of width 1/2: (0.5, 1] holds three, one wrong; (0, 0.5] two, one right; 0.5 belongs to the lower."""
    confidence, right = np.array([0.9, 0.8, 0.7, 0.5, 0.3]), np.array([True, True, False, True, False])
    found = calibration(confidence, right, bins=2)
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.4, 0.8]) and found.accuracy == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx(2 / 5 * 0.1 + 3 / 5 * (0.8 - 2 / 3)) and found.gap == pytest.approx(0.64 - 0.6)
    assert calibration(np.ones(4), np.ones(4, bool)).ece == 0


def test_pairs_are_counted_in_both_directions():
    counts = confusions(np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 0, 2, 1]), 3)
    assert counts.tolist() == [[1, 1, 1], [2, 0, 0], [0, 1, 1]]
    assert confused_pairs(counts, 2) == [Pair(1, 0, 2, 1), Pair(0, 2, 1, 0)]
    assert confused_pairs(np.eye(3, dtype=int), 5) == []


def test_groups_are_the_classes_that_are_taken_for_one_another():
    """Five planted groups of five classes, scattered, whose accuracies differ; probabilities leak inside alone."""
    generator = np.random.default_rng(0)
    group = generator.permutation(np.repeat(np.arange(5), 5))
    labels = np.tile(np.arange(25), 40)
    scores = generator.normal(0, 1, (len(labels), 25)) + 3 * (group[labels][:, None] == group)
    scores[np.arange(len(labels)), labels] += np.linspace(0, 8, 25)[labels]
    found = groups_of(_predictions(labels, scores))
    assert {frozenset(m) for m in found.members} == {frozenset(np.flatnonzero(group == g).tolist()) for g in range(5)}
    assert sorted(found.order) == [*range(25)] and found.order == [c for members in found.members for c in members]
    assert found.of(np.ones((25, 25))).tolist() == [[25.0] * 5] * 5


def _predictions(labels, scores):
    return Predictions([''] * len(labels), labels, scores.argmax(1), softmax(scores, axis=1), True)


@pytest.mark.parametrize('probable', [False, True])
def test_predictions_come_back_as_the_test_wrote_them(tmp_path, probable):
    """Logits and probabilities are told apart, and the accuracies are the test's own."""
    labels, logits = many(300, 30)
    scores = torch.tensor(softmax(logits, axis=1) if probable else logits).float()
    metric = PETLAccuracy(dump=str(tmp_path / 'p.csv'))
    for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
        skipped = ('cut short',) if i == 7 else ()
        metric.process(None, [dict(filename=f'{i}, "a".mp4', gt_label=label, pred_score=score, skipped=skipped)])
    wanted = metric.evaluate(300)
    found = read_predictions(tmp_path / 'p.csv')
    assert found.from_logits is not probable and found.files[3] == '3, "a".mp4'
    assert np.flatnonzero(~found.readable).tolist() == [7]
    np.testing.assert_allclose(found.probabilities, softmax(logits, axis=1), atol=1e-5)
    assert (100 * found.right.mean(), 100 * found.within(5) / 300) == pytest.approx(
        (wanted['acc/top1'], wanted['acc/top5'])
    )


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('file,label', 'path,label', 'first line'),
        (',0,', ',9,', 'outside the scores'),
        ('mp4,0', 'mp4,zero', 'zero'),
        ('mp4,0', 'mp4', 'columns'),
        (' ', ' nan ', 'scores|finite'),
        (' ', ' x', 'x'),
        ('clips/1.mp4', '"clips/1.mp4', 'broken'),
    ],
)
def test_broken_predictions_are_named(tmp_path, old, new, said):
    file = leave_test(tmp_path / 'run', [0, 1], np.array([[1.0, 2.0], [0.5, 3.0]])) / 'predictions.csv'
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=said) as error:
        read_predictions(file)
    assert str(file) in str(error.value)
