#!/usr/bin/env python
"""Time an experiment against stock full tuning."""

import sys

from vpetl_mm.cli import Parser, run
from vpetl_mm.config import load_config
from vpetl_mm.results.benchmark import benchmark, render

EXAMPLES = """\
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py
  tools/benchmark.py configs/demo_bapat.py --batch 32 --size 32"""


def main(args) -> None:
    """Measure and print."""
    print(render(benchmark(load_config(args.config), args.batch, args.frames, args.size, args.rounds)))


parser = Parser(
    "Step time, inference time and saved activations against mmaction2's stock model, fully tuned; float32.", EXAMPLES
)
parser.add_argument('config', help='the experiment')
parser.add_argument('--batch', type=int, default=1, help='clips a step (default: 1)')
parser.add_argument('--frames', type=int, default=8, help='frames a clip (default: 8)')
parser.add_argument('--size', type=int, default=224, help='side of a frame in pixels (default: 224)')
parser.add_argument('--rounds', type=int, default=5, help='shuffled rounds (default: 5)')

if __name__ == '__main__':
    sys.exit(run(main, parser))
