#!/usr/bin/env python
"""Time an experiment against full tuning of the stock model."""

import sys

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --bf16 --rounds 9
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --cfg-options model.backbone.drop_path_rate=0
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --variant model.petl.gelu=8bit
  tools/benchmark.py configs/demo_bapat.py --batch 32 --size 32"""


def main(args) -> None:
    """Measure and print."""
    from vpetl_mm.config import load_config
    from vpetl_mm.measure.benchmark import benchmark
    from vpetl_mm.measure.benchmark_table import benchmark_table

    cfg = load_config(args.config, args.cfg_options)
    variant = load_config(args.config, {**(args.cfg_options or {}), **args.variant}) if args.variant else None
    print(benchmark_table(benchmark(cfg, args.batch, args.frames, args.size, args.rounds, args.bf16, variant)))


parser = Parser("Measure speed and memory against full tuning of the host library's stock model.", EXAMPLES)
parser.add_config()
parser.add_argument('--batch', type=int, default=1, metavar='N', help='clips per step (default: 1)')
parser.add_argument('--frames', type=int, default=8, metavar='N', help='frames per clip (default: 8)')
parser.add_argument('--size', type=int, default=224, metavar='N', help='side of a frame in pixels (default: 224)')
parser.add_argument(
    '--rounds', type=int, default=5, metavar='N', help='times each is measured; the median counts (default: 5)'
)
parser.add_argument('--bf16', action='store_true', help='also measure in bfloat16')
parser.add_settings('--variant', 'also measure the experiment with these changes')
parser.add_settings('--cfg-options', 'override the config')

if __name__ == '__main__':
    sys.exit(run(main, parser))
