#!/usr/bin/env python
"""Find which parameters matter to an experiment's task, and what to tune under a budget."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

DESCRIPTION = """\
Find which parameters matter to an experiment's task, and what to tune under a budget (SPT).

Squared gradients of a few training batches say how much tuning each weight would lower the loss. The most sensitive
weights that fit the budget are tuned: by a low-rank update where a matrix holds many of them, singly where it holds
few. The result is a small file that petl.spt.file of a config names; a config that has petl.spt says budget, kind and
file itself. Only training data is read."""
EXAMPLES = """\
  tools/sensitivity.py configs/demo_sptlora.py
  tools/sensitivity.py configs/vits14_fc_cifar100n50_dinov2.py --budget 0.3M --structured adapter --plot blocks.png
  tools/sensitivity.py vit_sptlora_vtabcifar_in21k --budget 0.2M 0.4M 0.8M    the best on held-out data"""

STRUCTURED, CONTROLS = ('lora', 'adapter'), ('random', 'shuffled')


def main(args) -> None:
    """Measure, choose, write, and say what was chosen."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from vpetl_mm.commands.allocate import Request, find, prepared
    from vpetl_mm.commands.allocation_figure import check_plot, plot
    from vpetl_mm.commands.choose_budget import choose_budget
    from vpetl_mm.spt.budget import parse_budget
    from vpetl_mm.spt.summary import summary

    if args.plot:
        check_plot(Path(args.plot))
    cfg, request = prepared(
        Request(
            config=args.config,
            budgets=tuple(map(parse_budget, args.budget or ())),
            out=args.out,
            structured=args.structured,
            rank=args.rank,
            alpha=args.alpha,
            beta=args.beta,
            rule=args.rule,
            batches=args.batches,
            batch_size=args.batch_size,
            control=args.control,
            cfg_options=args.cfg_options,
            force=args.force,
        )
    )
    if len(request.budgets) > 1:
        request = choose_budget(cfg, request)
    columns = (
        TextColumn('measuring'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('batches'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('', total=request.batches)
        allocation, result = find(cfg, request, lambda: progress.advance(task))
    print(summary(allocation))
    print(
        f'\nMeasured on {allocation.made["batches"]} batches, {allocation.made["samples"]:,} training samples, in '
        f'{result.seconds:.1f} s; peak memory {result.peak_bytes / 1e9:.2f} GB.\n{request.out}'
    )
    if args.plot:
        plot(allocation, Path(args.plot))
        print(args.plot)


parser = Parser(DESCRIPTION, EXAMPLES)
parser.add_argument('config', help='the experiment: a file, or the name of one of those in configs/')
parser.add_argument(
    '--budget',
    nargs='+',
    metavar='N',
    help='parameters to tune, the head left out: 0.4M, 400k; several: the best',
)
parser.add_argument(
    '--out', metavar='FILE', help="the .safetensors file to write (default: the config's petl.spt.file)"
)
parser.add_argument('--force', action='store_true', help='replace FILE')
parser.add_argument('--batches', type=int, default=16, metavar='N', help='at most so many batches (default: 16)')
parser.add_argument('--batch-size', type=int, default=32, metavar='N', help='samples of a batch (default: 32)')
parser.add_argument(
    '--structured', choices=STRUCTURED, help='what tunes a whole matrix (default: as the config, or lora)'
)
parser.add_argument('--rank', type=int, metavar='R', help="of LoRA, or the adapter's bottleneck (default: 8)")
parser.add_argument(
    '--alpha', type=float, default=10.0, help='a matrix is tuned whole from 1/ALPHA of its cost on (default: 10)'
)
parser.add_argument(
    '--beta', type=float, default=5.0, help='a vector is tuned whole from 1/BETA of its entries on (default: 5)'
)
parser.add_argument(
    '--rule',
    choices=['within', 'closest'],
    default='within',
    help='within: the largest choice not above the budget (default); closest: the published search, which may exceed '
    'it and trains the class token',
)
parser.add_argument(
    '--control', choices=CONTROLS, help='choose without sensitivity, as what it is to be compared with'
)
parser.add_argument('--plot', metavar='FILE', help='draw sensitivity per block and per kind of matrix')
parser.add_settings('--cfg-options', 'override the config')

if __name__ == '__main__':
    sys.exit(run(main, parser))
