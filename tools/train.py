#!/usr/bin/env python
"""Train an experiment."""

import shlex
import sys

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import spoken

EXAMPLES = """\
  tools/train.py configs/swin_bapat_ssv2_b128.py
  tools/train.py configs/swin_bapat_ssv2_b128.py --resume
  tools/train.py configs/swin_bapat_ssv2_b128.py --resume --resume-with new --cfg-options train_cfg.max_epochs=90
  tools/train.py configs/swin_bapat_ssv2_b128.py --cfg-options holdout.fraction=0.05
  tools/dist_train.sh configs/swin_bapat_ssv2_b128.py 4"""


def main(args) -> None:
    """Train, and print how to test."""
    from vpetl_mm.engine.experiment import Options, prepare, train

    if args.resume_with and not args.resume:
        parser.error('--resume-with needs --resume')
    options = Options(
        args.work_dir, args.resume, args.amp, args.launcher, args.cfg_options, args.resume_with, args.overwrite
    )
    runner = train(prepare(args.config, options))
    adapter = f'{runner.work_dir}/adapter_epoch_{runner.epoch}.pth'
    if runner.rank == 0:
        print(spoken(f'Test it with: tools/test.py {shlex.join([args.config, adapter])}'))


parser = Parser('Train an experiment. Its config holds everything about it.', EXAMPLES)
parser.add_run_options()
parser.add_argument(
    '--resume',
    nargs='?',
    const='auto',
    metavar='CKPT',
    help="continue from CKPT, or from the run's last finished epoch",
)
parser.add_argument(
    '--resume-with',
    choices=['old', 'new'],
    help='if the settings have changed since the run began: continue with the old or with the new ones '
    '(default: list the differences and stop)',
)
parser.add_argument('--overwrite', action='store_true', help="first delete an older run's files in the work dir")
parser.add_argument(
    '--amp', action='store_true', help='use mixed precision in bfloat16, even on a CPU that only emulates it'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
