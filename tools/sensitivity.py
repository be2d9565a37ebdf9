#!/usr/bin/env python
"""Find which parameters matter to an experiment's task, and what to tune under a budget."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

DESCRIPTION = """\
Find which parameters matter to an experiment's task, and what to tune under a budget (SPT).

The squared gradients of a few training batches tell how much tuning each weight would lower the loss. The most
sensitive weights that fit the budget are tuned: by a low-rank update where a matrix holds many of them, one by one
where it holds few. The result is a small file for petl.spt.file of a config; a config with petl.spt already sets
budget, kind and file. Only training data is read."""
EXAMPLES = """\
  tools/sensitivity.py configs/demo_sptlora.py
  tools/sensitivity.py configs/vits14_fc_cifar100n50_dinov2.py --budget 0.3M --structured adapter --plot blocks.png
  tools/sensitivity.py vit_sptlora_vtabcifar_in21k --budget 0.2M 0.4M 0.8M    the best on held-out data"""

STRUCTURED, CONTROLS = {'lora': 'LoRA', 'adapter': 'AdaptMLP'}, ('random', 'shuffled')


def main(args) -> None:
    """Measure, choose, write, and describe the choice."""
    from dataclasses import fields

    from rich.console import Console
    from rich.progress import Progress

    from vpetl_mm.commands.allocate import AllocationRequest, find_allocation, most_batches, peak_bytes, resolve
    from vpetl_mm.commands.allocation_report import check_plot, describe_allocation, plot_allocation
    from vpetl_mm.commands.choose_budget import choose_budget
    from vpetl_mm.spt.budget import parse_budget

    if args.plot:
        check_plot(Path(args.plot))
    args.budgets = tuple(map(parse_budget, args.budget or ()))
    args.structured = STRUCTURED.get(args.structured)
    cfg, request = resolve(AllocationRequest(**{f.name: getattr(args, f.name) for f in fields(AllocationRequest)}))
    if len(request.budgets) > 1:
        request = choose_budget(cfg, request)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task('measuring', total=most_batches(request))
        allocation, measurement = find_allocation(cfg, request, lambda: progress.advance(task))
    print(describe_allocation(allocation))
    made, peak = allocation.made, peak_bytes() / 1e9
    print(
        f'\nMeasured on {made["batches"]:,} batches, {made["samples"]:,} training samples, in '
        f'{measurement.seconds:.1f} s; mean loss {made["loss"]:.3f}; peak memory {peak:.2f} GB.\n{request.out}'
    )
    if args.plot:
        plot_allocation(allocation, Path(args.plot))
        print(args.plot)


parser = Parser(DESCRIPTION, EXAMPLES)
parser.add_config()
parser.add_argument(
    '--budget',
    nargs='+',
    metavar='N',
    help='parameters to tune, without the head, such as 0.4M or 400k; of several, the best is chosen',
)
parser.add_argument('--out', metavar='FILE', help="the .safetensors to write (default: the config's petl.spt.file)")
parser.add_argument('--force', action='store_true', help='replace FILE')
parser.add_argument('--batches', type=int, default=16, metavar='N', help='at most N batches (default: 16)')
parser.add_argument('--batch-size', type=int, default=32, metavar='N', help='samples per batch (default: 32)')
parser.add_argument('--structured', choices=STRUCTURED, help="tunes whole matrices (default: the config's, or lora)")
parser.add_argument('--rank', type=int, metavar='R', help="of LoRA, or the adapter's bottleneck (default: 8)")
parser.add_argument(
    '--alpha',
    type=float,
    default=10.0,
    help='tune a matrix whole if its sensitive entries are at least 1/ALPHA of the cost (default: 10)',
)
parser.add_argument(
    '--beta',
    type=float,
    default=5.0,
    help='tune a vector whole if at least 1/BETA of its entries are sensitive (default: 5)',
)
parser.add_argument(
    '--rule',
    choices=['within', 'closest'],
    default='within',
    help='within: the largest choice not above the budget (default); closest: the published search, which may exceed '
    'it and trains the class token',
)
parser.add_argument(
    '--head',
    choices=['start', 'probe'],
    help="measure behind the head as it starts, or one trained on the frozen backbone's features (default: the "
    "config's, or start)",
)
parser.add_argument(
    '--gradients',
    choices=['batch', 'sample'],
    help="square the gradients of batches, or of single samples (default: the config's, or batch)",
)
parser.add_argument('--control', choices=CONTROLS, help='choose without sensitivity, for comparison')
parser.add_argument('--plot', metavar='FILE', help='draw sensitivity per block and per kind of matrix')
parser.add_settings('--cfg-options', 'override the config')

if __name__ == '__main__':
    sys.exit(run(main, parser))
