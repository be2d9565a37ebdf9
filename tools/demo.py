#!/usr/bin/env python
"""Pre-train, adapt by every method, and compare, on clips that it makes itself."""

import sys
from pathlib import Path

from vpetl_mm.cli import Parser, run
from vpetl_mm.results.demo import ALL, METHODS, Demo

EXAMPLES = """\
  tools/demo.py
  tools/demo.py --seeds 3
  tools/demo.py --all
  tools/demo.py --methods fc bapat"""


def main(args) -> None:
    """Run the demo."""
    methods = ALL if args.all else args.methods
    Demo(Path('configs'), Path('data/demo'), Path('work_dirs/demo'), args.seeds, methods).run()


parser = Parser('The main job on data made here: every method, its parameters and its accuracy.', EXAMPLES)
parser.add_argument('--seeds', type=int, default=1, help='seeds of each method (default: 1)')
parser.add_argument('--methods', nargs='+', choices=ALL, default=METHODS, metavar='METHOD', help='some of them')
parser.add_argument('--all', action='store_true', help='prefix, prompts and single positions too: Tables 1 and 3')

if __name__ == '__main__':
    sys.exit(run(main, parser))
