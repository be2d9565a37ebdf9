#!/usr/bin/env python
"""Train an experiment."""

import shlex
import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import spoken

EXAMPLES = """\
  tools/train.py configs/swin_bapat_ssv2_b128.py
  tools/train.py configs/swin_bapat_ssv2_b128.py --resume
  tools/train.py configs/swin_bapat_ssv2_b128.py --resume --resume-with new --cfg-options train_cfg.max_epochs=90
  tools/train.py configs/swin_bapat_ssv2_b128.py --cfg-options holdout.fraction=0.05
  tools/train.py configs/demo_bapat.py --init-from friends_bapat.safetensors
  tools/dist_train.sh configs/swin_bapat_ssv2_b128.py 4"""


def main(args) -> None:
    """Train, write the bundle, and print how to test and to predict."""
    from vpetl_mm.engine.experiment import Options, prepare, train
    from vpetl_mm.errors import UserError
    from vpetl_mm.files import size_of
    from vpetl_mm.use.bundle.model import trained_weights
    from vpetl_mm.use.bundle.packing import best_checkpoint, bundle_of_run

    if args.resume_with and not args.resume:
        parser.error('--resume-with needs --resume')
    options = Options(
        args.work_dir,
        args.resume,
        args.amp,
        args.launcher,
        args.cfg_options,
        args.resume_with,
        args.overwrite,
        args.init_from,
    )
    cfg = prepare(args.config, options)
    runner = train(cfg, initial=trained_weights(args.init_from) if args.init_from else None)
    if runner.rank:
        return
    try:
        checkpoint = Path(runner.cfg.work_dir, best_checkpoint(runner.work_dir).name)
        print(spoken(f'Test it with: tools/test.py {shlex.join([args.config, str(checkpoint)])}'))
        bundle = bundle_of_run(runner)
    except UserError as error:  # the run itself is whole
        print(f'warning: no bundle was written: {error}', file=sys.stderr)
        return
    command = f'tools/predict.py {shlex.quote(str(bundle))} INPUT...'
    print(spoken(f'Bundle of {size_of(bundle)}, which predicts with: {command}'))


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
parser.add_argument(
    '--init-from',
    metavar='BUNDLE',
    help='start a new run from the trained weights of a bundle (or adapter_*.pth) with the same deltas on the same '
    "base; the head's rows are taken by class name; optimizer and schedule start anew",
)
parser.add_argument('--overwrite', action='store_true', help="first delete an older run's files in the work dir")
parser.add_argument(
    '--amp', action='store_true', help='use mixed precision in bfloat16, even on a CPU that only emulates it'
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
