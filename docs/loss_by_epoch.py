#!/usr/bin/env python
"""How fast experiments learn, and where SPT put their parameters.

For each experiment it prints, as means over the seeds, the training loss of some epochs, and the share of SPT's
parameters that lies in the last third of the blocks.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from vpetl_cli.command import Parser, run
from vpetl_mm.errors import UserError
from vpetl_mm.spt.allocation import read_allocation
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


def in_the_last_third(experiment: Path) -> str:
    """Return the share of SPT's parameters in the last third of the blocks; '-' for another method."""
    shares = []
    for file in sorted(experiment.glob('seed_*/spt.safetensors')):
        rows = [row for row in read_allocation(file).rows if row.block is not None]
        first = 2 * (1 + max(row.block for row in rows)) // 3
        shares.append(sum(r.params for r in rows if r.block >= first) / sum(r.params for r in rows))
    return f'{np.mean(shares):.0%}' if shares else '-'


def main(args: Namespace) -> None:
    """Print a line for each experiment."""
    if min(args.at) < 1:
        raise UserError(f'--at counts epochs from 1, got {min(args.at)}.')
    losses = {folder.name: losses_of(folder, max(args.at)) for folder in args.experiments}
    thirds = {folder.name: in_the_last_third(folder) for folder in args.experiments}
    print(f'| experiment | seeds | last third | {" | ".join(f"epoch {n}" for n in args.at)} |')
    print(f'| --- | ---: | ---: {"| ---: " * len(args.at)}|')
    for name, by_seed in losses.items():
        shown = ' | '.join(f'{by_seed[:, n - 1].mean():.2f}' for n in args.at)
        print(f'| {name} | {len(by_seed)} | {thirds[name]} | {shown} |')


parser = Parser(
    "Print each experiment's training loss by epoch, and the share of SPT's parameters in the last third of blocks.",
    '  docs/loss_by_epoch.py work_dirs/vits14_spt*_cifar100shot10_dinov2',
)
parser.add_argument('experiments', nargs='+', type=Path, metavar='FOLDER', help='with the folders seed_*')
parser.add_argument('--at', type=int, nargs='+', default=[1, 2, 3, 5, 10, 20], metavar='N', help='which epochs')

if __name__ == '__main__':
    sys.exit(run(main, parser))
