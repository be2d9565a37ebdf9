#!/usr/bin/env python
"""Count what experiments train."""

import json
import sys

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/count_params.py configs/swin_bapat_ssv2_b128.py
  tools/count_params.py configs/swin_*.py --json"""


def main(args) -> None:
    """Count and print."""
    from vpetl_mm.measure.count import count_params, render

    rows = count_params(args.configs, progress=not args.json)
    print(json.dumps(rows, indent=1) if args.json else render(rows))


parser = Parser('Count the parameters that experiments train, on the meta device: no weights, no data.', EXAMPLES)
parser.add_argument('configs', nargs='+', help='files, or names of those in configs/')
parser.add_argument('--json', action='store_true', help='a JSON list of config, trainable, total, by group')

if __name__ == '__main__':
    sys.exit(run(main, parser))
