#!/usr/bin/env python
"""Compare tested runs: settings, scores, McNemar's test, curves."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/compare.py work_dirs/swin_bapat_ssv2_b128 work_dirs/swin_lora_ssv2_r16
  tools/compare.py work_dirs/demo/bapat/seed_0 work_dirs/demo/lora/seed_0 -o bapat_and_lora.png
  tools/compare.py work_dirs/x/result_mini_3fa2c1.json work_dirs/y/result_mini_3fa2c1.json"""


def main(args) -> None:
    """Print the comparison, and write the figure."""
    from vpetl_mm.use.report.compare import comparison, read_runs
    from vpetl_mm.use.report.compare_figure import check_figure, draw_curves

    figure = Path(args.output)
    check_figure(figure)
    runs = read_runs(args.runs)
    text, drawn = comparison(runs), draw_curves(runs, figure)
    print(text)
    print(f'\ncurves: {figure}' if drawn else '\ncurves: none, as no folder has the log of a training')


parser = Parser(
    "Compare two or more tested runs: the settings that differ, the scores side by side, McNemar's test on the clips "
    'that they share, and their curves in one figure.',
    EXAMPLES,
)
parser.add_argument('runs', nargs='+', metavar='RUN', help='the folder of a tested run, or its result.json')
parser.add_argument(
    '-o',
    '--output',
    metavar='FILE',
    default='compare.png',
    help='the figure, .png, .pdf or .svg (default: %(default)s)',
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
