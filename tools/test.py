#!/usr/bin/env python
"""Test a checkpoint."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/test.py configs/swin_bapat_ssv2_b128.py work_dirs/swin_bapat_ssv2_b128/adapter_epoch_70.pth
  tools/test.py configs/demo_bapat.py work_dirs/demo_bapat/adapter_epoch_7.pth --dump predictions.csv
  tools/test.py configs/demo_lora.py work_dirs/demo_lora/adapter_epoch_7.pth --merge demo_lora.safetensors"""


def main(args) -> None:
    """Test, print the accuracies, and write the predictions and the report."""
    from vpetl_mm.engine.experiment import Options, prepare, test
    from vpetl_mm.engine.launch import rank_and_world_size
    from vpetl_mm.engine.merged import describe_merged
    from vpetl_mm.engine.outcome import predictions_of, result_of
    from vpetl_mm.use.report.page import leave_report

    cfg = prepare(args.config, Options(args.work_dir, None, False, args.launcher, args.cfg_options))
    dump = args.dump or predictions_of(cfg, args.checkpoint)
    scores = test(cfg, args.checkpoint, dump, merged=args.merge)
    if rank_and_world_size(cfg)[0]:
        return
    print(', '.join(f'{name.removeprefix("acc/")} {value:.2f}' for name, value in scores.items()))
    print(f'predictions: {dump}')
    print(leave_report(result_of(cfg, args.checkpoint), Path(dump), cfg))
    if args.merge:
        print(f'merged: {args.merge}, the plain model just tested: {describe_merged(args.merge)}')
        print('docs/weights.md shows how to load it without this package')


parser = Parser('Test a checkpoint on the test set: top-1, top-5 and mean class accuracy in percent.', EXAMPLES)
parser.add_run_options()
parser.add_argument('checkpoint', help='adapter_*.pth, best_*.pth or epoch_*.pth of this config')
parser.add_argument(
    '--dump', metavar='FILE', help='the CSV file for the predictions (default: predictions.csv in the work dir)'
)
parser.add_argument(
    '--merge',
    metavar='FILE',
    help="first merge LoRA, SPT-LoRA and the head's BatchNorm into the weights; test the resulting plain model of "
    'mmpretrain or mmaction2, and write it to FILE (.safetensors)',
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
