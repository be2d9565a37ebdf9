"""Accuracies of a worked example."""

from __future__ import annotations

import pytest
import torch

from vpetl_mm.engine.accuracy import PETLAccuracy


def evaluate(scores, labels, skipped=()):
    metric = PETLAccuracy(topk=(1, 2))
    samples = [
        dict(pred_score=torch.tensor(s), gt_label=torch.tensor([label]), skipped=('x',) if i in skipped else ())
        for i, (s, label) in enumerate(zip(scores, labels, strict=True))
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_a_worked_example():
    scores = [[0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.1, 0.7, 0.2]]
    got = evaluate(scores, [0, 1, 0, 1])
    # first and last are right; the second's label comes second; the third's last; class means 1/2 and 1/2
    assert got == pytest.approx({'acc/top1': 50.0, 'acc/top2': 75.0, 'acc/mean_class': 50.0})


def test_mean_class_weighs_classes_alike():
    got = evaluate([[1.0, 0.0]] * 4, [0, 0, 0, 1])
    assert got['acc/top1'] == 75.0 and got['acc/mean_class'] == 50.0


def test_what_could_not_be_read_is_wrong_in_every_figure():
    got = evaluate([[1.0, 0.0], [1.0, 0.0]], [0, 0], skipped={1})
    assert got == pytest.approx({'acc/top1': 50.0, 'acc/top2': 50.0, 'acc/mean_class': 50.0})
