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
parser.add_argument('bundle', type=Path, help='a .safetensors file of tools/train.py or tools/adapter.py pack')
parser.add_argument(
    'inputs',
    nargs='+',
    metavar='INPUT',
    help='files, folders (searched recursively), patterns in quotes; - reads a list of paths from standard input; '
    'or the number of a camera, from 0. Unreadable files are named and skipped, and the exit status is then 1',
)
parser.add_argument(
    '--base',
    type=Path,
    metavar='FILE',
    help='its base (default: the file of its name in data/weights/ or data/demo/)',
)
parser.add_argument('--topk', type=int, default=5, metavar='K', help='how many classes to list (default: 5)')
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
    '--json',
    metavar='FILE',
    help='a new file, with one JSON object per line; -: standard output, and nothing else there',
)
parser.add_argument(
    '--csv', metavar='FILE', help='a new file, with a table; -: standard output, and nothing else there'
)
parser.add_argument(
    '--show-dir',
    type=Path,
    metavar='DIR',
    help='a new folder, with a picture of each input: frames, and the classes as bars',
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
