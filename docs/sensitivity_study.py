#!/usr/bin/env python
"""What sensitivity knows of a task.

For each way of measuring it prints, of the 300,000 most sensitive entries of the backbone, the share that a second
measurement finds again (another seed: other batches, another head), once with the true labels, and once with those of
the same images dealt out at random. A measure that knows the task finds fewer again with labels that mean nothing.
Chance comes last.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np

from vpetl_cli.command import Parser, run
from vpetl_mm.commands.allocate import AllocationRequest, measure_experiment, resolve
from vpetl_mm.config import load_config
from vpetl_mm.errors import UserError
from vpetl_mm.spt.sensitivity import GRADIENTS, HEADS, Sensitivity

ENTRIES = 300_000


def measured(config: str, out: Path, seed: int, images: Path, **how: str) -> Sensitivity:
    """Measure the sensitivity of an experiment on the images of an array file."""
    options = {'randomness.seed': seed, 'train_dataloader.dataset.ann_file': str(images)}
    cfg, request = resolve(AllocationRequest(config, (ENTRIES,), str(out), cfg_options=options, **how))
    return measure_experiment(cfg, request).sensitivity


def with_mixed_labels(images: Path, per_class: int, file: Path) -> Path:
    """Write the first images of each class alone, their labels dealt out at random, as many of each class."""
    arrays = dict(np.load(images))
    labels = arrays['train_labels']
    first = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(len(arrays['classes']))])
    arrays['train_images'] = arrays['train_images'][np.sort(first)]
    arrays['train_labels'] = np.random.default_rng(0).permutation(labels[np.sort(first)])
    np.savez(file, **arrays)
    return file


def most_sensitive(sensitivity: Sensitivity) -> set[int]:
    """Return the positions of the most sensitive entries."""
    return {*np.argpartition(-sensitivity.values, ENTRIES)[:ENTRIES].tolist()}


def by_kind(sensitivity: Sensitivity, top: set[int]) -> str:
    """Return which share of the most sensitive entries lies in each kind of matrix and vector."""
    ends = np.cumsum([unit.numel for unit in sensitivity.units])
    owners = np.searchsorted(ends, np.fromiter(top, int), side='right')
    kinds = np.array([unit.kind for unit in sensitivity.units])[owners]
    names, counts = np.unique(kinds, return_counts=True)
    return ', '.join(f'{name} {count / len(top):.0%}' for name, count in zip(names, counts, strict=True))


def main(args: Namespace) -> None:
    """Measure in every way, and compare."""
    config, dataset = args.config, load_config(args.config).train_dataloader.dataset
    if dataset.type != 'ImageArrays' or not dataset.get('per_class'):
        raise UserError(f'{config} has no ImageArrays with per_class to train on, whose labels could be mixed.')
    images, published, total = Path(dataset.ann_file), None, 1
    with tempfile.TemporaryDirectory() as folder:
        mixed = with_mixed_labels(images, dataset.per_class, Path(folder, 'mixed.npz'))
        print(f'{"head":6} {"gradients":9} {"loss":>6} {"true":>6} {"mixed":>6} {"published":>9}  share by kind')
        for gradients in GRADIENTS:
            for head in HEADS:
                one, true, random = (
                    measured(config, Path(folder, 'a.safetensors'), seed, file, head=head, gradients=gradients)
                    for seed, file in ((0, images), (1, images), (1, mixed))
                )
                top, total = most_sensitive(one), len(one.values)
                published = published or top
                found = (most_sensitive(true), most_sensitive(random), published)
                again = [len(top & other) / ENTRIES for other in found]
                print(
                    f'{head:6} {gradients:9} {one.loss:6.3f} {again[0]:6.1%} {again[1]:6.1%} {again[2]:9.1%}  ',
                    end='',
                )
                print(by_kind(one, top), flush=True)
    print(f'chance: {ENTRIES / total:.1%}')


parser = Parser(
    'What sensitivity knows of a few-shot task.',
    '  docs/sensitivity_study.py configs/vits14_sptlora_cifar100shot10_dinov2.py',
)
parser.prog = 'docs/sensitivity_study.py'
parser.add_config()

if __name__ == '__main__':
    sys.exit(run(main, parser))
