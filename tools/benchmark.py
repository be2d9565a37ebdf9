#!/usr/bin/env python
"""Time an experiment, or every method on its host, against full tuning."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --bf16 --rounds 9
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --cfg-options model.backbone.drop_path_rate=0
  tools/benchmark.py configs/swin_bapat_ssv2_b128.py --variant model.petl.gelu=8bit
  tools/benchmark.py configs/demo_bapat.py --batch 32 --size 32
  tools/benchmark.py configs/swin_fc_ssv2.py --methods all --rounds 3 --frames 4 --out methods.png
  tools/benchmark.py configs/vit_fc_cifar100_mae.py --methods lora,vpt --batch 2

--methods ignores the experiment's own method. It drops no path, and shares the host's weights among all models: 44
methods on a Swin-B take 8 GiB with --frames 4. Rounds are what takes the time; on two cores --rounds 3 --frames 4, or
--batch 2 on a ViT-B, should end within a quarter of an hour. Other work on the machine spoils the times, not the
memory."""


def main(args) -> None:
    """Measure and print."""
    from vpetl_mm.config import load_config
    from vpetl_mm.errors import UserError
    from vpetl_mm.measure.benchmark import benchmark
    from vpetl_mm.measure.benchmark_table import benchmark_table

    cfg = load_config(args.config, args.cfg_options)
    if args.methods:
        return _methods(cfg, args)
    if args.out:
        raise UserError('--out draws what --methods measures; give both.')
    variant = load_config(args.config, {**(args.cfg_options or {}), **args.variant}) if args.variant else None
    print(benchmark_table(benchmark(cfg, args.batch, args.frames, args.size, args.rounds, args.bf16, variant)))


def _methods(cfg, args) -> None:
    from vpetl_mm.errors import UserError
    from vpetl_mm.measure.method_benchmark import benchmark_methods
    from vpetl_mm.measure.method_table import method_table
    from vpetl_mm.paper.method_figure import check_figure, draw_methods

    if args.bf16 or args.variant:
        raise UserError('--methods takes neither --bf16 nor --variant.')
    if args.out:
        check_figure(args.out)
    found, result = benchmark_methods(cfg, args.methods, args.batch, args.frames, args.size, args.rounds)
    print(method_table(found, result))
    if args.out:
        draw_methods(found, args.out)


parser = Parser("Measure speed and memory against full tuning of the host library's stock model.", EXAMPLES)
parser.add_config()
parser.add_argument(
    '--methods', metavar='NAMES', help='instead: methods of configs/_base_/methods, separated by commas, or all'
)
parser.add_argument('--out', type=Path, metavar='FILE', help='draw the methods to this file, .png, .svg or .pdf')
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
