#!/usr/bin/env python
"""Test a checkpoint or a bundle."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import find_config

EXAMPLES = """\
  tools/test.py configs/swin_bapat_ssv2_b128.py work_dirs/swin_bapat_ssv2_b128/adapter_epoch_70.pth
  tools/test.py configs/demo_bapat.py work_dirs/demo_bapat/adapter_epoch_7.pth --dump predictions.csv
  tools/test.py configs/demo_lora.py work_dirs/demo_lora/adapter_epoch_7.pth --merge demo_lora.safetensors
  tools/test.py demo_bapat.safetensors --data data/demo/target_test.txt --base data/demo/source_backbone.pth"""
USAGE = """%(prog)s CONFIG CHECKPOINT [options]
       %(prog)s BUNDLE --data LIST [--data-prefix DIR] [--base FILE] [options]"""


def main(args) -> None:
    """Test a checkpoint with its config, or a bundle with a list."""
    of_bundles = [f'--{n.replace("_", "-")}' for n in ('data', 'data_prefix', 'base') if getattr(args, n) is not None]
    if len(args.tested) == 2:
        find_config(args.tested[0])
        if of_bundles:
            parser.error(f"{of_bundles[0]} is for a bundle, and a checkpoint is tested on its config's data")
        test_checkpoint(args)
    elif len(args.tested) == 1 and args.tested[0].endswith('.safetensors'):
        if args.data is None:
            parser.error('a bundle needs --data LIST, a text file of "path label" lines')
        test_bundle(args)
    else:
        parser.error('give a config and its checkpoint, or a bundle (.safetensors) and --data LIST')


def test_checkpoint(args) -> None:
    """Test a checkpoint with its config."""
    from vpetl_mm.engine.experiment import prepare

    config, checkpoint = args.tested
    show(args, prepare(config, options_of(args)), checkpoint)


def test_bundle(args) -> None:
    """Test a bundle without its config."""
    from vpetl_mm.engine.experiment import prepare
    from vpetl_mm.use.bundle.bundle import read_bundle
    from vpetl_mm.use.bundle.model import as_checkpoint
    from vpetl_mm.use.bundle.testing import bundle_experiment, listed_options

    bundle = read_bundle(args.tested[0])
    args.work_dir = args.work_dir or f'work_dirs/{bundle.file.stem}'
    with bundle_experiment(bundle, args.data, args.data_prefix, args.base) as experiment:
        cfg = prepare(experiment, options_of(args))
        cfg.bundle = bundle.file.name
        cfg.given_options.update(listed_options(bundle, args.data))
        show(args, cfg, as_checkpoint(bundle))


def options_of(args):
    """The options of a run."""
    from vpetl_mm.engine.experiment import Options

    return Options(args.work_dir, None, False, args.launcher, args.cfg_options)


def show(args, cfg, checkpoint) -> None:
    """Test, print the accuracies, and write the predictions and the report."""
    from vpetl_mm.engine.experiment import test
    from vpetl_mm.engine.launch import rank_and_world_size
    from vpetl_mm.engine.merged import describe_merged
    from vpetl_mm.engine.outcome import predictions_of, result_of
    from vpetl_mm.use.report.page import leave_report

    dump = args.dump or predictions_of(cfg, checkpoint)
    scores = test(cfg, checkpoint, dump, merged=args.merge)
    if rank_and_world_size(cfg)[0]:
        return
    print(', '.join(f'{name.removeprefix("acc/")} {value:.2f}' for name, value in scores.items()))
    print(f'predictions: {dump}')
    print(leave_report(result_of(cfg, checkpoint), Path(dump), cfg))
    if args.merge:
        print(f'merged: {args.merge}, the plain model just tested: {describe_merged(args.merge)}')
        print('docs/weights.md shows how to load it without this package')


parser = Parser(
    'Test a checkpoint on the test set of its config, or a bundle on a list of files: top-1, top-5 and mean class '
    'accuracy in percent.',
    EXAMPLES,
)
parser.usage = USAGE
parser.parse_args = parser.parse_intermixed_args  # options may stand between the two files
parser.add_argument(
    'tested',
    nargs='*',
    metavar='CONFIG CHECKPOINT | BUNDLE',
    help='an experiment (a file, or the name of one in configs/) and its adapter_*.pth, best_*.pth or epoch_*.pth; '
    'or a bundle, a .safetensors file that needs no config',
)
parser.add_argument('--data', metavar='LIST', help='for a bundle: a text file with a line "path label" for each file')
parser.add_argument(
    '--data-prefix',
    metavar='DIR',
    help="for a bundle: the folder that the paths in LIST start from (default: the first of LIST's own, its videos/ "
    'or images/, and the current one that has the first file)',
)
parser.add_argument(
    '--base',
    metavar='FILE',
    help='for a bundle: its base (default: the file of its name in data/weights/ or data/demo/)',
)
parser.add_run_options(config=False)
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
