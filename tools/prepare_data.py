#!/usr/bin/env python
"""Prepare a data set for training, and check it."""

import os
import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.errors import UserError

DESCRIPTION = """\
Prepare a data set for training, and check it.

NAME is ssv2, hmdb51, cifar100, svhn, food101, as downloaded; or vtab1k, a folder for each task with its lists; or a
name of your own for a folder per class or lists "path label" or "path,label" (train.csv, and val.csv, test.csv where
you have them). The result is lists, class names, a manifest and links to the files in data/NAME; --src is never
changed, and a call may be repeated."""
EXAMPLES = """\
  tools/prepare_data.py hmdb51 --src ~/downloads/hmdb51              .rar files or class folders, and the lists
  tools/prepare_data.py ssv2 --src ~/ssv2 --reencode --workers 16    small copies that decode fast
  tools/prepare_data.py food101 --src ~/downloads/food-101.tar.gz
  tools/prepare_data.py vtab1k --src ~/vtab-1k                       its tasks, or those that are there
  tools/prepare_data.py clips --src ~/clips                          a folder per class; test and val are drawn
  tools/prepare_data.py clips --src ~/clips/all.csv --test 0.3 --val 0.1 --seed 1
  tools/prepare_data.py check hmdb51                                 opens every file; writes clean lists"""


def main(args) -> None:
    """Prepare, or check; both go on where an interruption left them."""
    try:
        work(args)
    except KeyboardInterrupt:
        print('interrupted; the same command goes on from here', file=sys.stderr)
        sys.exit(130)


def work(args) -> None:
    """Prepare, or check."""
    if len(args.name) > 2 or (len(args.name) == 2 and args.name[0] != 'check') or args.name == ['check']:
        raise UserError('Give one NAME, or "check" and a NAME.')
    name, checks = args.name[-1], len(args.name) == 2
    out = Path(args.out or f'data/{name}').expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f'--out {out} is a file, not a folder.')
    if args.short_side is not None and not args.reencode and not checks:
        raise UserError('--short-side is the size of the copies that --reencode makes: add it.')
    from vpetl_mm.preparation.found import Request
    from vpetl_mm.preparation.prepare import prepare
    from vpetl_mm.preparation.sources import check_name

    check_name(name)
    if checks:
        check_data(args, name, out)
        return
    if not args.src:
        raise UserError(f'Say with --src where the files of {name} are.')
    prepare(
        Request(
            name=name,
            src=Path(args.src).expanduser(),
            out=out,
            val=args.val,
            test=args.test,
            seed=args.seed,
            split=args.split,
            classes=Path(args.classes).expanduser() if args.classes else None,
            sha256=args.sha256,
            short_side=(256 if args.short_side is None else args.short_side) if args.reencode else None,
            workers=args.workers,
        )
    )


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
parser.add_argument('name', nargs='+', metavar='NAME', help='the data set; "check" before it checks what is prepared')
parser.add_argument('--src', metavar='PATH', help='the folder, archive or list that you have')
parser.add_argument('--out', metavar='DIR', help='where the result goes (default: data/NAME)')
parser.add_argument(
    '--val', type=float, default=0.1, metavar='SHARE', help='share of the training list for val.txt (default: 0.1)'
)
parser.add_argument(
    '--test', type=float, metavar='SHARE', help='own data without a test list: share to draw for one (default: 0.2)'
)
parser.add_argument('--seed', type=int, default=0, help='of what is drawn (default: 0)')
parser.add_argument('--split', type=int, choices=[1, 2, 3], help='of hmdb51 (default: 1)')
parser.add_argument('--classes', metavar='FILE', help='own data: the class names, a line each, by label')
parser.add_argument('--sha256', action='store_true', help='put SHA-256 sums into the manifest')
parser.add_argument('--reencode', action='store_true', help='make small H.264 copies of the videos')
parser.add_argument('--short-side', type=int, metavar='PIXELS', help='of these copies (default: 256)')
parser.add_argument('--workers', type=int, default=os.cpu_count(), metavar='N', help='processes (default: all cores)')
parser.add_argument('--min-frames', type=int, default=16, metavar='N', help='check: fewer is too short (default: 16)')

if __name__ == '__main__':
    sys.exit(run(main, parser))
