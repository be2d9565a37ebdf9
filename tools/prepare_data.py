#!/usr/bin/env python
"""Prepare a data set for training, and check it."""

import os
import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.errors import UserError

DESCRIPTION = """\
Prepare a data set for training, and check it.

NAME is ssv2, hmdb51, cifar100, svhn or food101, as downloaded; vtab1k, a folder for each task with its lists; or any
other name, for your own folder per class or lists of "path label" or "path,label" lines (train.csv, and val.csv and
test.csv if you have them). data/NAME gets lists, class names, a manifest and links to the files. --src is never
changed, and the command may be repeated."""
EXAMPLES = """\
  tools/prepare_data.py hmdb51 --src ~/downloads/hmdb51              .rar files or class folders, and the lists
  tools/prepare_data.py ssv2 --src ~/ssv2 --reencode --workers 16    small copies that decode fast
  tools/prepare_data.py food101 --src ~/downloads/food-101.tar.gz
  tools/prepare_data.py vtab1k --src ~/vtab-1k                       all tasks, or those that you have
  tools/prepare_data.py clips --src ~/clips                          a folder per class; test and val are drawn
  tools/prepare_data.py clips --src ~/clips/all.csv --test 0.3 --val 0.1 --seed 1
  tools/prepare_data.py check hmdb51                                 open every file, write clean lists"""


def main(args) -> None:
    """Prepare a data set, or check a prepared one; both go on where an interruption left them."""
    if len(args.name) > 2 or (len(args.name) == 2 and args.name[0] != 'check') or args.name == ['check']:
        raise UserError('Give one NAME, or "check" and a NAME.')
    name, checks = args.name[-1], len(args.name) == 2
    out = (args.out or Path('data', name)).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f'--out {out} is a file, not a folder.')
    if args.short_side is not None and not args.reencode and not checks:
        raise UserError('--short-side is the size of the copies that --reencode makes: add it.')
    from vpetl_mm.preparation.sources import check_name

    check_name(name)
    if not checks and not args.src:
        raise UserError(f'Say with --src where the files of {name} are.')
    try:
        (check_data if checks else prepare_data)(args, name, out)
    except KeyboardInterrupt:
        print('interrupted; the same command goes on from here', file=sys.stderr)
        sys.exit(130)


def prepare_data(args, name: str, out: Path) -> None:
    """Prepare a data set."""
    from vpetl_mm.preparation.found import PrepareArgs
    from vpetl_mm.preparation.prepare import prepare

    side = (256 if args.short_side is None else args.short_side) if args.reencode else None
    same = ('val', 'test', 'seed', 'split', 'sha256', 'workers')
    classes = args.classes and args.classes.expanduser()
    options = {option: getattr(args, option) for option in same}
    prepare(PrepareArgs(name, args.src.expanduser(), out, classes=classes, short_side=side, **options))


def check_data(args, name: str, out: Path) -> None:
    """Open every file of a prepared data set."""
    from vpetl_mm.preparation.check import check

    # VTAB-1k is a data set for each task
    folders = [out] if (out / 'dataset.json').is_file() else sorted(p.parent for p in out.glob('*/dataset.json'))
    if not folders:
        raise UserError(f'{out} is not prepared; run tools/prepare_data.py {name} --src DIR first.')
    problems = 0
    for folder in folders:
        if len(folders) > 1:
            print(f'{folder}:')
        problems += check(folder, args.workers, args.min_frames)
    if problems:
        raise UserError(f'{out} has {problems:,} problems; the lists *_clean.txt are without them.')


parser = Parser(DESCRIPTION, EXAMPLES)
parser.usage = """\
%(prog)s NAME --src PATH [options]
       %(prog)s check NAME [--out DIR] [--workers N] [--min-frames N]"""
parser.add_argument('name', nargs='+', metavar='NAME', help='the data set; with "check" before it, check it')
parser.add_argument('--src', type=Path, metavar='PATH', help='your folder, archive or list')
parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the result (default: data/NAME)')
parser.add_argument('--val', type=float, default=0.1, metavar='SHARE', help='share drawn for val.txt (default: 0.1)')
parser.add_argument('--test', type=float, metavar='SHARE', help='share drawn for test.txt, own data (default: 0.2)')
parser.add_argument('--seed', type=int, default=0, help='seed of the draws (default: 0)')
parser.add_argument('--split', type=int, choices=[1, 2, 3], help='split of hmdb51 (default: 1)')
parser.add_argument('--classes', type=Path, metavar='FILE', help='class names of your own data, one per line')
parser.add_argument('--sha256', action='store_true', help='put SHA-256 sums into the manifest')
parser.add_argument('--reencode', action='store_true', help='make small H.264 copies of the videos')
parser.add_argument('--short-side', type=int, metavar='PIXELS', help='shorter side of these copies (default: 256)')
parser.add_argument('--workers', type=int, default=os.cpu_count(), metavar='N', help='processes (default: all cores)')
parser.add_argument('--min-frames', type=int, default=16, metavar='N', help='check: least frames (default: 16)')

if __name__ == '__main__':
    sys.exit(run(main, parser))
