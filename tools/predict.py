#!/usr/bin/env python
"""Classify videos, images or a camera with a bundle."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/predict.py work_dirs/demo_bapat/demo_bapat.safetensors data/demo/target_test
  tools/predict.py fight.safetensors ~/clips '*.mp4' --base swin_base.pth --show-dir pictures
  find ~/clips -name '*.mp4' | tools/predict.py fight.safetensors - --json - | jq .name
  tools/predict.py fight.safetensors 0     # the first camera, until Ctrl-C"""
DTYPES, VIEWS = ('auto', 'float32', 'bfloat16'), ('test', 'fast')


def main(args) -> int:
    """Classify, and return 1 if an input could not be read."""
    from vpetl_mm.commands.predict import PredictArgs, predict

    options = {k: v for k, v in vars(args).items() if k != 'debug'}
    return 1 if predict(PredictArgs(**options)) else 0


parser = Parser(
    'Classify videos, images or a camera with a bundle (tools/adapter.py pack), and print the likeliest classes.',
    EXAMPLES,
)
parser.add_argument('bundle', type=Path, help='a .safetensors of tools/train.py or tools/adapter.py pack')
parser.add_argument(
    'inputs',
    nargs='+',
    metavar='INPUT',
    help='files, folders (with all below them), patterns in quotes; - for a list of paths on standard input; or a '
    "camera's number, from 0. What cannot be read is named and skipped, and the exit status is then 1",
)
parser.add_argument('--base', type=Path, metavar='FILE', help='the pre-trained weights (default: in data/weights/)')
parser.add_argument('--topk', type=int, default=5, metavar='K', help='how many classes to tell (default: 5)')
parser.add_argument(
    '--batch-size',
    type=int,
    default=8,
    metavar='N',
    help='views (clips x crops) that go through the model at once; those of one input stay together (default: 8)',
)
parser.add_argument(
    '--views',
    choices=VIEWS,
    help="test: those that the bundle's scores were measured with, averaged; fast: one clip, one central crop "
    '(default: test; for a camera fast)',
)
parser.add_argument(
    '--dtype', choices=DTYPES, default='auto', help='auto: bfloat16 where the hardware has it (default: auto)'
)
parser.add_argument(
    '--json', metavar='FILE', help='a new file for one JSON object a line; -: standard output, with nothing else'
)
parser.add_argument('--csv', metavar='FILE', help='a new file for a table; -: standard output, with nothing else')
parser.add_argument(
    '--show-dir', type=Path, metavar='DIR', help='a new folder for pictures: sampled frames, and the classes as bars'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
