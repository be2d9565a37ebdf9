#!/usr/bin/env python
"""Time an experiment against stock full tuning."""

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
    from vpetl_mm.measure.benchmark_table import render

    cfg = load_config(args.config, args.cfg_options)
    variant = load_config(args.config, {**(args.cfg_options or {}), **args.variant}) if args.variant else None
    print(render(benchmark(cfg, args.batch, args.frames, args.size, args.rounds, args.bf16, variant)))


parser = Parser(
    "Step and inference time, work and memory against the host library's stock model, fully tuned, in one run.",
    EXAMPLES,
)
parser.add_argument('config', help='the experiment')
parser.add_argument('--batch', type=int, default=1, help='clips a step (default: 1)')
parser.add_argument('--frames', type=int, default=8, help='frames a clip (default: 8)')
parser.add_argument('--size', type=int, default=224, help='side of a frame in pixels (default: 224)')
parser.add_argument('--rounds', type=int, default=5, help='shuffled rounds (default: 5)')
parser.add_argument('--bf16', action='store_true', help='also in bfloat16, beside stock in bfloat16 and in float32')
parser.add_settings('--variant', 'measure the experiment with this as well')
parser.add_settings('--cfg-options', 'override the config')

if __name__ == '__main__':
    sys.exit(run(main, parser))
