#!/usr/bin/env python
"""Train an experiment."""

import sys

from vpetl_mm.cli import Parser, run
from vpetl_mm.engine.experiment import Options, prepare, train

EXAMPLES = """\
  tools/train.py configs/swin_bapat_ssv2_b128.py
  tools/train.py configs/swin_bapat_ssv2_b128.py --resume
  tools/train.py configs/swin_bapat_ssv2_b128.py --cfg-options holdout.fraction=0.05
  tools/dist_train.sh configs/swin_bapat_ssv2_b128.py 4"""


def main(args) -> None:
    """Train, and say how to test."""
    options = Options(args.work_dir, args.resume, args.amp, args.launcher, args.cfg_options)
    runner = train(prepare(args.config, options))
    adapter = f'{runner.work_dir}/adapter_epoch_{runner.epoch}.pth'
    if runner.rank == 0:
        print(f'Test it with: tools/test.py {args.config} {adapter}')


parser = Parser('Train an experiment; everything about it stands in its config.', EXAMPLES)
parser.add_run_options()
parser.add_argument(
    '--resume',
    nargs='?',
    const='auto',
    metavar='CKPT',
    help="continue from CKPT, or from the run's last finished epoch",
)
parser.add_argument(
    '--amp', action='store_true', help='mixed precision in bfloat16, also on a CPU that only emulates it'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
