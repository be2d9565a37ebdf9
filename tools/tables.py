#!/usr/bin/env python
"""Show the paper's tables and figures with our results, and run what they lack."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.errors import UserError, unknown
from vpetl_cli.shipped import configs

WORK_DIRS = 'work_dirs'
FIGURES, FORMATS = ('figure1', 'figure1c', 'figure4'), ('text', 'md', 'csv', 'latex')
PRINTED = ('table1', 'table3', 'table4', 'table5', 'table6', 'table7', 'table8')
OTHERS = ('demo', 'transfer', 'vtab', 'vtab_further')
OTHERS += ('fewshot', 'fewshot_random', 'fewshot5', 'fewshot50', 'fewshot_spt', 'fewshot_patt')
# options that say something of --run, and of how it carries runs out
OF_RUN, MOST_SEEDS = ('methods', 'watch', 'dry_run', 'gpus', 'seeds'), 1000
OF_ENGINE = ('engine', 'parallel', 'max_parallel', 'partition', 'hours', 'sbatch')
EXAMPLES = """\
  tools/tables.py                                   every table, in the terminal
  tools/tables.py table3 table1 --format md --out tables.md
  tools/tables.py table3 --format latex             for a paper, with booktabs; csv has plain numbers
  tools/tables.py demo                              the results of "make demo"
  tools/tables.py transfer                          a real ViT-S/14 on CIFAR-100 (docs/real_transfer.md)
  tools/tables.py fewshot fewshot5 fewshot50        the same with 10, 5 and 50 images a class (docs/few_shot.md)
  tools/tables.py vtab                              SPT and its baselines on VTAB-1k, by group of tasks
  tools/tables.py vtab_further                      methods of further papers on it
  tools/tables.py --run table3 --dry-run            the missing runs: commands, memory, GPU hours
  tools/tables.py --run table3 --dry-run --gpu A100 hours of another GPU than the RTX 3090
  tools/tables.py --run table3 --gpus 4 --seeds 3   train and test them; after an interruption, repeat it to go on
  tools/tables.py --run table3 --engine slurm --partition gpu --gpus 4 --max-parallel 8    as jobs of a cluster
  tools/tables.py --run table3 --watch              what each run is doing; work_dirs/grid.html too
  tools/tables.py --run transfer --methods ssf mona only these rows
  tools/tables.py --collect --docs                  write results into configs/metafile.yml and the generated pages
  tools/tables.py figure1 figure1c figure4 --out figures    PNG and PDF"""


def main(args) -> None:
    """Run, collect, write the pages, or show."""
    work_dirs, figures = Path(args.work_dirs), [n for n in args.show if n in FIGURES]
    check_run_options(args)
    if not args.run and args.work_dirs != WORK_DIRS and not work_dirs.is_dir():
        raise UserError(f'--work-dirs {work_dirs} does not exist.')
    if work_dirs.exists() and not work_dirs.is_dir():
        raise UserError(f'--work-dirs {work_dirs} is a file.')
    for name in args.show:
        if name not in (valid := (*PRINTED, *FIGURES, *OTHERS)):
            raise unknown('table or figure', name, valid)
    if figures and len(figures) < len(args.show) and args.out:
        raise UserError('--out is a folder for figures and a file for tables: ask for one kind at a time.')
    if (args.collect or args.docs) and configs() != Path('configs'):
        raise UserError('--collect and --docs write into configs/ and docs/: run them in a clone of the repository.')
    if args.run:
        run_missing(args, work_dirs)
    if args.collect or args.docs:
        write(args, work_dirs)
    if args.show or not (args.run or args.collect or args.docs):
        show(args, work_dirs, figures)


def check_run_options(args) -> None:
    """Refuse options of --run that do nothing."""
    if args.dry_run and args.watch:
        raise UserError('--dry-run shows what there is to do, and --watch what is being done: ask for one.')
    given = {n for n in ('gpu', *OF_RUN, *OF_ENGINE) if getattr(args, n) is not parser.get_default(n)}
    if given and not args.run:
        raise UserError(f'{spelled(given)} is about what --run does: add --run TABLE.')
    if 'gpu' in given and not args.dry_run:
        raise UserError('--gpu is the kind that --dry-run computes the hours of: add --dry-run.')
    if (args.dry_run or args.watch) and (idle := given & {*OF_ENGINE}):
        raise UserError(f'{spelled(idle)} is for carrying out runs: leave it out of --dry-run and --watch.')
    if args.run and not args.show and (args.out or args.format != 'text'):
        raise UserError('--format and --out are for tables and figures that are shown: leave out --run.')
    if args.run and not 1 <= args.seeds <= MOST_SEEDS:
        raise UserError(f'--seeds must be from 1 to {MOST_SEEDS}, got {args.seeds}.')
    if args.parallel is not None and args.parallel < 1:
        raise UserError(f'--parallel must be at least 1, got {args.parallel}.')


def spelled(names) -> str:
    """Return the first of some options as it is typed."""
    return f'--{min(names).replace("_", "-")}'


def run_missing(args, work_dirs: Path) -> None:
    """Train and test what the tables of --run lack, or print how."""
    from vpetl_mm.commands import grid, watch_grid
    from vpetl_mm.commands.forecast import forecast
    from vpetl_mm.paper.metafile import METAFILE, load_metafile
    from vpetl_mm.paper.names import parse_name
    from vpetl_mm.paper.tables import Tables

    for table in args.run:
        if table not in (valid := (*PRINTED, *(n for n in OTHERS if n != 'demo'))):
            raise unknown('table of --run', table, valid)
    tables = Tables(load_metafile(configs() / METAFILE.name), None, configs())
    methods = {n: parse_name(n).method for t in args.run for n in tables.names(t)}
    for word in args.methods or ():
        if word not in {*methods, *methods.values()}:
            raise unknown(f'method of {", ".join(args.run)}', word, sorted({*methods.values()}))
    names = [n for n, method in methods.items() if not args.methods or {n, method} & {*args.methods}]
    held = {e.name: [*e.by_seed] or range(e.ours.seeds) for e in tables.entries if e.ours}
    runs = grid.plan(names, configs(), work_dirs, args.gpus, args.seeds, held)
    if args.dry_run:
        for line in forecast(runs, args.gpus, args.gpu or 'RTX 3090'):
            print(line, flush=True)
    elif args.watch:
        watch_grid.watch(runs, work_dirs / 'grid.html')
    else:
        grid.carry_out(runs, engine_of(args, work_dirs))


def engine_of(args, work_dirs: Path):
    """Return what carries the runs out."""
    if args.engine == 'slurm':
        if args.parallel is not None:
            raise UserError('--parallel is for runs on this machine; on a cluster it is --max-parallel.')
        from vpetl_mm.campaign.slurm import SlurmEngine

        asked = dict(partition=args.partition, gpus=args.gpus, hours=args.hours, max_parallel=args.max_parallel)
        return SlurmEngine(work_dirs / '.slurm', **asked, options=args.sbatch)
    for name in ('max_parallel', 'partition', 'hours', 'sbatch'):
        if getattr(args, name) is not None:
            raise UserError(f'--{name.replace("_", "-")} is for --engine slurm.')
    from vpetl_mm.campaign.local import LocalEngine

    return LocalEngine(args.parallel, args.gpus)


def write(args, work_dirs: Path) -> None:
    """Write results into the repository's metafile, and its generated pages."""
    from vpetl_mm.measure import cost
    from vpetl_mm.paper import publish
    from vpetl_mm.paper.metafile import METAFILE

    if args.collect:
        done = publish.collect(METAFILE, work_dirs)
        counts = f'{len(done.filled)} experiments filled in, {len(done.searched)} with what their searches found'
        print(f'{METAFILE}: {counts}; {done.left_out} results belong to none of them.')
    if args.docs:
        for path, text in publish.documents().items():
            publish.write(path, text)
            print(f'written: {path}')
        publish.write(Path('configs', cost.FILE), cost.refreshed())
        print(f'written: configs/{cost.FILE}')


def show(args, work_dirs: Path, figures: list[str]) -> None:
    """Print or write tables, and draw figures."""
    from vpetl_mm.engine.preflight import check_writable
    from vpetl_mm.paper import publish
    from vpetl_mm.paper.demo_table import read_demo_table
    from vpetl_mm.paper.figures import figure1, figure1c, figure4
    from vpetl_mm.paper.metafile import METAFILE, load_metafile
    from vpetl_mm.paper.table_format import render
    from vpetl_mm.paper.tables import Tables

    wanted = args.show or PRINTED
    if args.out and not figures and Path(args.out).is_dir():
        raise UserError(f'--out for tables is a file, and {args.out} is a folder.')
    if args.out:
        folder = Path(args.out)
        check_writable(f'--out {args.out}', folder if figures and not folder.is_file() else folder.parent)
    source = None
    if {*wanted} - {'demo', 'figure4'}:
        source = Tables(load_metafile(configs() / METAFILE.name), work_dirs, configs())
    shown = [read_demo_table(work_dirs) if n == 'demo' else source.table(n) for n in wanted if n not in FIGURES]
    text = render(shown, args.format) if shown else ''
    if text and args.out:
        publish.write(Path(args.out), text + '\n')
    elif text:
        print(text)
    draw = dict(figure1=(figure1, source), figure1c=(figure1c, source), figure4=(figure4, work_dirs))
    for figure, results in map(draw.get, figures):
        print(', '.join(map(str, figure(results, Path(args.out or work_dirs)))))


parser = Parser("Show the paper's tables and figures with our results, and run what they lack.", EXAMPLES)
parser.add_argument('show', nargs='*', metavar='TABLE', help=', '.join((*PRINTED, *OTHERS, *FIGURES)))
parser.add_argument('--format', choices=FORMATS, default='text', help='of tables (default: text)')
parser.add_argument('--out', metavar='PATH', help='a file for tables, a folder for figures')
parser.add_argument('--work-dirs', metavar='DIR', default=WORK_DIRS, help='where runs are (default: work_dirs)')
parser.add_argument('--run', nargs='+', metavar='TABLE', help='train and test the experiments that these tables lack')
parser.add_argument(
    '--methods', nargs='+', metavar='METHOD', help='with --run: only these, such as lora, or names of experiments'
)
parser.add_argument('--gpus', type=int, default=1, metavar='N', help='per run: 1, 2 or a multiple of 4 (default: 1)')
parser.add_argument('--engine', choices=('local', 'slurm'), default='local', help='where runs are (default: local)')
parser.add_argument('--parallel', type=int, metavar='N', help='local: runs at a time (default: as many as fit)')
parser.add_argument('--max-parallel', type=int, metavar='N', help='slurm: runs at a time (default: no limit)')
parser.add_argument('--partition', metavar='NAME', help="slurm: of the jobs (default: the cluster's)")
parser.add_argument(
    '--hours',
    type=float,
    metavar='H',
    help="slurm: after which a job is requeued (default: the partition's limit, or 24)",
)
parser.add_settings('--sbatch', 'slurm: further options of sbatch, such as account=vision mem=64G')
parser.add_argument('--watch', action='store_true', help='with --run: show what each run is doing')
parser.add_argument('--seeds', type=int, default=1, metavar='N', help='seeds per experiment, from 0 (default: 1)')
parser.add_argument('--dry-run', action='store_true', help='with --run: only print commands, memory, GPU hours')
parser.add_argument('--gpu', metavar='NAME', help='with --dry-run: the kind of GPU (default: RTX 3090)')
parser.add_argument('--collect', action='store_true', help='write the results of runs into configs/metafile.yml')
parser.add_argument('--docs', action='store_true', help='write the generated pages in configs/ and docs/')

if __name__ == '__main__':
    sys.exit(run(main, parser))
