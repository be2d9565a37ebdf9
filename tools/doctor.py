#!/usr/bin/env python
"""Look for what is wrong with an experiment before it is trained."""

import sys

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import spoken

DESCRIPTION = """\
Look for what is wrong with an experiment before hours are spent on it: labels that the head has no class for, files
in two lists, files that cannot be read, trained weights that no gradient reaches, frozen ones that change, a learning
rate that ends in nan; and tell the time and the memory that training takes.

A line for each check: ok, note or WRONG. The exit status is 0, or 1 if something is WRONG. A few optimizer steps are
taken on one batch of the experiment's own data; nothing is written."""
EXAMPLES = """\
  tools/doctor.py configs/demo_bapat.py
  tools/doctor.py configs/swin_bapat_ssv2_b128.py --gpus 4
  tools/doctor.py configs/swin_bapat_ssv2_b128.py --cfg-options train_dataloader.batch_size=2    on a small machine
  tools/doctor.py configs/demo_bapat.py && tools/train.py configs/demo_bapat.py"""


def main(args) -> int:
    """Print each verdict as it comes, then what is wrong."""
    import shlex

    from vpetl_mm.commands.doctor.examination import Examination, examine
    from vpetl_mm.commands.doctor.verdict import WRONG

    verdicts = []
    request = Examination(args.config, args.cfg_options, args.samples, args.steps, args.hash, args.gpus)
    for verdict in examine(request):
        print(verdict.lines(), flush=True)
        verdicts.append(verdict)
    wrong = [verdict.check for verdict in verdicts if verdict.state == WRONG]
    if wrong:
        print(f'\n{len(wrong)} of {len(verdicts)} checks found something wrong: {", ".join(wrong)}.')
        return 1
    print(spoken(f'\nNothing is wrong. Train it with: tools/train.py {shlex.quote(args.config)}'))
    return 0


parser = Parser(DESCRIPTION, EXAMPLES)
parser.add_config()
parser.add_argument('--samples', type=int, default=64, metavar='N', help='samples of each list to read (default: 64)')
parser.add_argument('--steps', type=int, default=3, metavar='N', help='optimizer steps on one batch (default: 3)')
parser.add_argument(
    '--hash', type=int, default=20_000, metavar='N', help='read at most N files to compare contents (default: 20000)'
)
parser.add_argument(
    '--gpus', type=int, default=1, metavar='N', help='how many the run will have, for rate and hours (default: 1)'
)
parser.add_settings('--cfg-options', 'override the config, such as train_dataloader.batch_size=2')

if __name__ == '__main__':
    sys.exit(run(main, parser))
