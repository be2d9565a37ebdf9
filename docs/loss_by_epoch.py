#!/usr/bin/env python
"""How fast experiments learn: the training loss of some epochs, the mean over each one's seeds."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from vpetl_cli.command import Parser, run
from vpetl_mm.errors import UserError
from vpetl_mm.use.report.curves import read_curves_of


def losses_of(experiment: Path, epochs: int) -> np.ndarray:
    """Return the mean training loss of each epoch and seed, (seeds, epochs).

    Raises:
        UserError: where no seed has them all.
    """
    means = []
    for folder in sorted(experiment.glob('seed_*')):
        curves = read_curves_of(folder)
        by_epoch = [
            [loss for step, loss in curves.loss if n < step / curves.per_epoch <= n + 1] for n in range(epochs)
        ]
        if all(by_epoch):
            means.append([np.mean(losses) for losses in by_epoch])
    if not means:
        raise UserError(f'{experiment} has no seed_* folder with the logs of {epochs} epochs.')
    return np.array(means)


def main(args: Namespace) -> None:
    """Print a line for each experiment."""
    if min(args.at) < 1:
        raise UserError(f'--at counts epochs from 1, got {min(args.at)}.')
    losses = {folder.name: losses_of(folder, max(args.at)) for folder in args.experiments}
    print(f'| experiment | seeds | {" | ".join(f"epoch {n}" for n in args.at)} |')
    print(f'| --- | ---: {"| ---: " * len(args.at)}|')
    for name, by_seed in losses.items():
        shown = ' | '.join(f'{by_seed[:, n - 1].mean():.2f}' for n in args.at)
        print(f'| {name} | {len(by_seed)} | {shown} |')


parser = Parser(
    'Print the training loss of some epochs, the mean over the seeds of each experiment.',
    '  docs/loss_by_epoch.py work_dirs/vits14_spt*_cifar100shot10_dinov2',
)
parser.add_argument('experiments', nargs='+', type=Path, metavar='FOLDER', help='with the folders seed_*')
parser.add_argument('--at', type=int, nargs='+', default=[1, 2, 3, 5, 10, 20], metavar='N', help='which epochs')

if __name__ == '__main__':
    sys.exit(run(main, parser))
