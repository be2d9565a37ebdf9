#!/usr/bin/env python
"""Time the loading of an experiment's training clips."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/benchmark_loading.py configs/swin_bapat_ssv2_b128.py --videos data/ssv2/videos
  tools/benchmark_loading.py configs/swin_bapat_hmdb51_b128.py --videos data/hmdb51/trainval.txt --rounds 3"""


def main(args) -> None:
    """Measure and print."""
    from vpetl_mm.config import load_config
    from vpetl_mm.measure.loading import loading_speed, loading_table

    print(loading_table(loading_speed(load_config(args.config), Path(args.videos), args.rounds)))


parser = Parser("Measure the loading of clips against mmaction2's stock transforms, per second and core.", EXAMPLES)
parser.add_config()
parser.add_argument('--videos', required=True, metavar='DIR_OR_LIST', help='a folder of videos, or a list of them')
parser.add_argument(
    '--rounds', type=int, default=5, metavar='N', help='clips of each video; the median counts (default: 5)'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
