#!/usr/bin/env python
"""Count the parameters that experiments, or methods on hosts, train."""

import json
import sys

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/count_params.py configs/swin_bapat_ssv2_b128.py
  tools/count_params.py configs/swin_*.py --json
  tools/count_params.py --methods all                               # on every host of configs/_base_/models
  tools/count_params.py --methods lora,vpt configs/vit_fc_cifar100_mae.py   # on this experiment's host"""


def main(args) -> None:
    """Count and print."""
    if args.methods:
        return _methods(args)
    from vpetl_mm.measure.count import count_params, count_table

    rows = count_params(args.configs)
    print(json.dumps(rows, indent=1) if args.json else count_table(rows))


def _methods(args) -> None:
    from dataclasses import asdict

    from vpetl_mm.measure.count_methods import count_methods, methods_table

    columns = count_methods(args.methods, args.configs)
    print(json.dumps([asdict(c) for c in columns], indent=1) if args.json else methods_table(columns))


class CountParser(Parser):
    """Needs experiments, or methods."""

    def parse_args(self, *args, **kwargs):
        """Parse the options; without either, say what is missing."""
        given = super().parse_args(*args, **kwargs)
        if not given.configs and not given.methods:
            self.error('give CONFIG, or --methods')
        return given


parser = CountParser('Count the parameters that experiments train; needs neither weights nor data.', EXAMPLES)
parser.add_argument('configs', nargs='*', metavar='CONFIG', help='files, or names of experiments in configs/')
parser.add_argument(
    '--methods',
    metavar='NAMES',
    help='count what methods of configs/_base_/methods (all, or names separated by commas) train on hosts',
)
parser.add_argument(
    '--json', action='store_true', help='print JSON: config, trainable, total, by (group); or host, video, trains'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
