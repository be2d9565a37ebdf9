#!/usr/bin/env python
"""Count the parameters that experiments train."""

import json
import sys

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/count_params.py configs/swin_bapat_ssv2_b128.py
  tools/count_params.py configs/swin_*.py --json"""


def main(args) -> None:
    """Count and print."""
    from vpetl_mm.measure.count import count_params, count_table

    rows = count_params(args.configs)
    print(json.dumps(rows, indent=1) if args.json else count_table(rows))


parser = Parser('Count the parameters that experiments train; needs neither weights nor data.', EXAMPLES)
parser.add_argument('configs', nargs='+', metavar='CONFIG', help='files, or names of experiments in configs/')
parser.add_argument('--json', action='store_true', help='print a JSON list with config, trainable, total, by (group)')

if __name__ == '__main__':
    sys.exit(run(main, parser))
