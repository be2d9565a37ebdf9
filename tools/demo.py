#!/usr/bin/env python
"""Pre-train a small model, adapt it by every method, and compare them, on generated clips."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import configs

EXAMPLES = """\
  tools/demo.py
  tools/demo.py --seeds 3
  tools/demo.py --all
  tools/demo.py --further
  tools/demo.py --methods fc bapat"""


def main(args) -> None:
    """Run the demo."""
    from vpetl_mm.commands.demo import ALL, FURTHER, METHODS, Demo

    methods = ALL if args.all else FURTHER if args.further else args.methods or METHODS
    folders = (configs(), Path('data/demo'), Path('work_dirs/demo'))
    Demo(*folders, args.seeds, methods, parallel=args.parallel).run()


DEMOS = sorted({p.stem.removeprefix('demo_') for p in configs().glob('demo_*.py')} - {'turns'})
parser = Parser('Pre-train a small Video Swin on generated clips, adapt it by every method, and compare.', EXAMPLES)
parser.add_argument('--seeds', type=int, default=1, metavar='N', help='seeds per method (default: 1)')
parser.add_argument('--parallel', type=int, metavar='N', help='runs at a time (default: one for each core)')
which = parser.add_mutually_exclusive_group()
which.add_argument('--methods', nargs='+', choices=DEMOS, metavar='METHOD', help=f'only these: {", ".join(DEMOS)}')
which.add_argument('--all', action='store_true', help="also prefix-tuning, prompts, SPT's controls, single positions")
which.add_argument('--further', action='store_true', help='the methods of further papers instead')

if __name__ == '__main__':
    sys.exit(run(main, parser))
