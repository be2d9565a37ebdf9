"""Tests that never ran: their folders, with predictions of any kind."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpetl_mm.engine.record import Record, write_record

CONFIG = (
    "model = dict(type='A', petl=dict(train=['head'], deltas=dict()))\ntrain_dataloader = dict(batch_size={batch})\n"
)


def leave_test(
    folder: Path,
    labels: Sequence[int],
    scores: np.ndarray,
    files: Sequence[str] | None = None,
    config: str = 'one',
    batch: int = 8,
    unreadable: Sequence[int] = (),
) -> Path:
    """A folder with the result, the predictions and the log of a test; scores are [N, C]."""
    labels, readable = np.array(labels), np.ones(len(labels), bool)
    readable[list(unreadable)] = False
    files = [f'clips/{i}.mp4' for i in range(len(labels))] if files is None else files
    order = np.argsort(-scores, axis=1, kind='stable')
    right = (order == labels[:, None]) & readable[:, None]
    per_class = [right[labels == c, 0].mean() for c in np.unique(labels)]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'predictions.csv', 'w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(('file', 'label', 'prediction', 'readable', 'scores'))
        for i, row in enumerate(scores):
            said = order[i, 0] if readable[i] else ''
            writer.writerow((files[i], labels[i], said, int(readable[i]), ' '.join(f'{v:.6g}' for v in row)))
    accuracies = (100 * right[:, 0].mean(), 100 * right[:, :5].any(1).mean(), 100 * np.mean(per_class))
    numbers = (30, 100, 'adapter_epoch_2.pth', 2, len(labels))
    record = Record(config, 0, *map(float, accuracies), *numbers, {}, '2026-01-02T03:04:05', 'here', dict(head=30))
    write_record(folder, record)
    log = folder / '20260101_000000/vis_data'
    log.mkdir(parents=True, exist_ok=True)
    (log / 'config.py').write_text(CONFIG.format(batch=batch))
    lines = [f'{{"loss": {2 / k}, "lr": 0.1, "epoch": {k}, "step": {10 * k}}}\n' for k in (1, 2, 3)]
    (log / 'scalars.json').write_text(''.join(lines))
    return folder


def many(samples: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N], each class at least once, and logits [N, C] of a model that is often right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, samples)
    labels[:classes] = np.arange(classes)
    logits = generator.normal(0, 1.5, (samples, classes))
    logits[np.arange(samples), labels] += generator.normal(3, 1.5, classes)[labels]
    return labels, logits
