#!/usr/bin/env python
"""Pre-train, adapt by every method, and compare, on clips that it makes itself."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import configs

EXAMPLES = """\
  tools/demo.py
  tools/demo.py --seeds 3
  tools/demo.py --all
  tools/demo.py --methods fc bapat"""


def main(args) -> None:
    """Run the demo."""
    from vpetl_mm.commands.demo import ALL, Demo

    chosen = dict(methods=ALL if args.all else args.methods) if args.all or args.methods else {}
    Demo(configs(), Path('data/demo'), Path('work_dirs/demo'), args.seeds, **chosen).run()


METHODS = {p.stem.removeprefix('demo_') for p in configs().glob('demo_*.py')} - {'source'}
parser = Parser('The main job on data made here: every method, its parameters and its accuracy.', EXAMPLES)
parser.add_argument('--seeds', type=int, default=1, help='seeds of each method (default: 1)')
parser.add_argument('--methods', nargs='+', choices=sorted(METHODS), metavar='METHOD', help='some of them')
parser.add_argument('--all', action='store_true', help='prefix, prompts and single positions too: Tables 1 and 3')

if __name__ == '__main__':
    sys.exit(run(main, parser))
