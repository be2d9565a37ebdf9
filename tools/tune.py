#!/usr/bin/env python
"""Search for the settings of an experiment on held-out training data."""

import sys

from vpetl_cli.command import Parser, run
from vpetl_cli.errors import UserError
from vpetl_cli.shipped import find_config

SAMPLERS, PRUNERS, ENGINES = ('tpe', 'grid', 'random'), ('hyperband', 'none'), ('local', 'slurm')
WORK_DIR = 'work_dirs/tune'
JOBS, FINALISTS = 2, 3
MOST_TRIALS, MOST_SEEDS = 10_000, 1_000
EXAMPLES = """\
  tools/tune.py configs/demo_bapat.py --search default
  tools/tune.py configs/demo_bapat.py --search "optim_wrapper.optimizer.lr=log(1e-4,1e-1)" --trials 12
  tools/tune.py demo_lora demo_bapat --search default --trials 12   one search each, of equal budget
  tools/tune.py configs/demo_bapat.py --search default "model.petl.deltas.patt.slots=[kv,qv,qkv]"
  tools/tune.py configs/swin_bapat_ssv2_b128.py --search default --engine slurm --jobs 8 --partition gpu
  optuna-dashboard work_dirs/tune/demo_bapat/journal.log            the live page"""


def main(args) -> None:
    """Check everything, then search."""
    given = read_spaces(args.search)
    check_counts(args)
    from vpetl_mm.search.settings import need_optuna

    need_optuna()
    from vpetl_mm.search.checks import planned
    from vpetl_mm.search.search import tune

    configs = [find_config(config) for config in args.configs]
    names = [config.stem for config in configs]
    if len({*names}) < len(names):
        raise UserError(f'Two configs have the same name: {", ".join(names)}; search them one after the other.')
    engine, jobs = engine_of(args)
    asked = (args.cfg_options, args.metric, args.sampler, args.work_dir, args.pruner)
    plans = [planned(config, given, *asked) for config in configs]
    for line in (line for _, said in plans for line in said):
        print(line)
    tune([search for search, _ in plans], engine, args.trials, jobs, args.finalists, args.seeds)


def check_counts(args) -> None:
    """Check what is counted; without --finalists there are 3, or as many as there are trials."""
    most = dict(trials=MOST_TRIALS, jobs=None, seeds=MOST_SEEDS, finalists=args.trials)
    for name, highest in most.items():
        value = getattr(args, name)
        least = 0 if name == 'finalists' else 1
        if value is not None and value < least:
            raise UserError(f'--{name} must be at least {least}, got {value}.')
        if value is not None and highest is not None and value > highest:
            raise UserError(f'--{name} must be at most {highest:,}, got {value:,}.')
    args.finalists = min(FINALISTS, args.trials) if args.finalists is None else args.finalists


def read_spaces(pairs) -> dict:
    """Return --search as a dict; the word default stands for the space of the method."""
    spaces = {}
    for pair in pairs or ():
        key, equals, space = pair.partition('=')
        if not key or (not equals and key != 'default') or (equals and not space):
            raise UserError(f'--search takes default and KEY=SPACE, such as lr="log(1e-4,1e-1)", got {pair!r}.')
        if key in spaces:
            raise UserError(f'--search names {key} twice.')
        spaces[key] = space
    return spaces


def engine_of(args):
    """Return what carries the trials out, and how many workers there are."""
    if args.engine == 'slurm':
        from pathlib import Path

        from vpetl_mm.campaign.slurm import SlurmEngine

        jobs = args.jobs or JOBS
        asked = dict(partition=args.partition, hours=args.hours, max_parallel=jobs)
        return SlurmEngine(Path(args.work_dir, '.slurm'), **asked), jobs
    for name in ('partition', 'hours'):
        if getattr(args, name) is not None:
            raise UserError(f'--{name} is for --engine slurm.')
    import torch

    from vpetl_mm.campaign.local import LocalEngine
    from vpetl_mm.engine.launch import available_cores

    engine = LocalEngine(args.jobs or (None if torch.cuda.is_available() else min(JOBS, available_cores())))
    return engine, engine.parallel


parser = Parser('Search for the settings of an experiment on held-out training data, by Optuna.', EXAMPLES)
parser.add_argument('configs', nargs='+', metavar='CONFIG', help='experiments: a search each, of equal budget')
parser.add_argument(
    '--search',
    nargs='+',
    action='extend',
    metavar='KEY=SPACE',
    help='what to search: log(1e-4,1e-1), uniform(0.1,1), int(1,8) or [32,64,128] for a key of the config; default: '
    "the space of its method (default: the config's own search)",
)
parser.add_argument('--trials', type=int, default=20, metavar='N', help='of each search (default: 20)')
parser.add_argument(
    '--jobs',
    type=int,
    metavar='N',
    help=f'at a time, over all searches (default: one a GPU here; {JOBS} without GPUs and on Slurm)',
)
parser.add_argument('--sampler', choices=SAMPLERS, default='tpe', help="Optuna's (default: tpe)")
parser.add_argument(
    '--pruner',
    choices=PRUNERS,
    default='hyperband',
    help='hyperband (default) stops trials that lose; none trains every trial to its end',
)
parser.add_argument('--metric', default='acc/top1', help='top1, top5 or mean_class on held-out data (default: top1)')
parser.add_argument(
    '--finalists',
    type=int,
    metavar='N',
    help=f'best trials that get all seeds; 0: trials alone, the test list stays unread (default: {FINALISTS})',
)
parser.add_argument('--seeds', type=int, default=3, metavar='N', help='of each finalist (default: 3)')
parser.add_argument(
    '--engine', choices=ENGINES, default='local', help='processes here, or Slurm jobs (default: local)'
)
parser.add_argument('--partition', metavar='NAME', help="slurm: of the jobs (default: the cluster's)")
parser.add_argument('--hours', type=float, metavar='H', help='slurm: limit of a job; it is requeued (default: none)')
parser.add_argument(
    '--work-dir', metavar='DIR', default=WORK_DIR, help=f'the searches go below it (default: {WORK_DIR})'
)
parser.add_settings('--cfg-options', 'override the config, in every trial and in the winner')

if __name__ == '__main__':
    sys.exit(run(main, parser))
