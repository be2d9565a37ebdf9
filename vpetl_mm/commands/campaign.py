"""A table's missing runs: planned, trained, tested, resumed and collected, by the command lines in tools/."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine import Config

from vpetl_cli.shipped import INSTALLED, ROOT, TOOLS, find_config

from ..config import load_config
from ..engine.record import FILE, Record, find_records, read_record
from ..errors import UserError
from ..measure.count import tracked, trains_by_budget
from ..measure.memory import estimate
from ..measure.memory import render as render_memory
from ..models.build import build_model
from ..paper.tables import counts_as_printed

PAPER_GPUS = 4  # the recipes' batches are those of one of four GPUs
NEW, RESUME, TEST, DONE = 'train and test', 'resume and test', 'test', 'done'
SPT_FILE = 'spt.safetensors'  # in a run's folder: what sensitivity has chosen for it


@dataclass(frozen=True)
class Run:
    """One experiment with one seed.

    Args:
        config: the config file.
        seed: of the run.
        work_dir: where its files go.
        state: what is to be done: ``NEW``, ``RESUME``, ``TEST`` or ``DONE``.
        commands: the command lines that do it, in order.
    """

    config: Path
    seed: int
    work_dir: Path
    state: str
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        return f'{self.config.stem}, seed {self.seed}'


def batch_options(cfg: Config, gpus: int) -> list[str]:
    """The ``--cfg-options`` that keep the recipe's total batch, that of 4 GPUs or ``recipe_gpus``, on another number.

    Fewer GPUs accumulate gradients; more take smaller batches each.

    Raises:
        UserError: when ``gpus`` neither divides that number nor is a multiple of it, or does not divide the batch.
    """
    recipe = cfg.get('recipe_gpus', PAPER_GPUS)
    if gpus < 1 or (recipe % gpus and gpus % recipe):
        takes = '1, 2, 4 or a multiple of 4' if recipe == PAPER_GPUS else f'a divisor or a multiple of {recipe}'
        raise UserError(f'--gpus {gpus} cannot keep the batch of {recipe} GPUs: take {takes}.')
    if gpus == recipe:
        return []
    if gpus < recipe:
        steps = cfg.optim_wrapper.get('accumulative_counts', 1) * recipe // gpus
        return [f'optim_wrapper.accumulative_counts={steps}']
    total = cfg.train_dataloader.batch_size * recipe
    if total % gpus:
        raise UserError(f'--gpus {gpus} does not divide the total batch of {total} of {Path(cfg.filename).name}.')
    return [f'train_dataloader.batch_size={total // gpus}']


def _last_adapter(cfg: Config, work_dir: Path) -> Path:
    return work_dir / f'adapter_epoch_{cfg.train_cfg.max_epochs}.pth'


def _commands(cfg: Config, config: Path, work_dir: Path, state: str, seed: int, gpus: int) -> tuple:
    options = ['--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}', *batch_options(cfg, gpus)]
    spt, first = work_dir / SPT_FILE, []
    if trains_by_budget(cfg.model):
        options.append(f'model.petl.spt.file={spt}')
        if not spt.is_file():
            tool = (sys.executable, str(TOOLS / 'sensitivity.py'), str(config), '--out', str(spt))
            first.append((*tool, '--cfg-options', f'randomness.seed={seed}'))
    if gpus == 1:
        train = [sys.executable, str(TOOLS / 'train.py'), str(config)]
        test = [sys.executable, str(TOOLS / 'test.py')]
    else:
        train = [str(TOOLS / 'dist_train.sh'), str(config), str(gpus)]
        launch = [sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={gpus}']
        test = [*launch, str(TOOLS / 'test.py'), '--launcher', 'pytorch']
    # argparse would take a positional that follows --cfg-options for one of its values
    train += ['--resume'] * (state == RESUME) + options
    test += [str(config), str(_last_adapter(cfg, work_dir)), *options]
    return (*first, tuple(test)) if state == TEST else (*first, tuple(train), tuple(test))


def plan(
    names: Iterable[str],
    configs: Path,
    work_dirs: Path,
    gpus: int = 1,
    seeds: int = 1,
    held: Mapping[str, int] | None = None,
) -> list[Run]:
    """What has to be done for every experiment and seed, done ones included.

    Args:
        names: experiments.
        configs: the folder of the configs.
        work_dirs: where runs go, ``<work_dirs>/<config>/seed_<s>``; a record anywhere below it counts.
        gpus: how many GPUs a run is to use.
        seeds: seeds 0 to ``seeds - 1``.
        held: experiment -> of how many seeds the metafile has the results already.

    Raises:
        UserError: for a number of GPUs that does not fit, and for a corrupt record.
    """
    if seeds < 1:
        raise UserError(f'--seeds must be at least 1, got {seeds}.')
    done = {(r.config, r.seed) for r in find_records(work_dirs).values() if counts_as_printed(r, configs)}
    runs = []
    for name in tracked(names, 'planning'):
        config = find_config(configs / f'{name}.py')
        cfg = load_config(config)
        for seed in range(seeds):
            work_dir = work_dirs / name / f'seed_{seed}'
            if (name, seed) in done or seed < (held or {}).get(name, 0):
                runs.append(Run(config, seed, work_dir, DONE))
                continue
            state = _state(cfg, work_dir)
            runs.append(Run(config, seed, work_dir, state, _commands(cfg, config, work_dir, state, seed, gpus)))
    return runs


def _state(cfg: Config, work_dir: Path) -> str:
    if _last_adapter(cfg, work_dir).is_file():
        return TEST
    return RESUME if any(work_dir.glob('epoch_[0-9]*.pth')) else NEW


def dry_run(runs: Sequence[Run], count: Callable[[Iterable[str]], dict[str, int]], gpus: int = 1) -> str:
    """What would be run: commands, trainable parameters, and an estimate of each run's memory.

    Args:
        runs: of :func:`plan`.
        count: names -> trainable parameters; SPT's are left out.
        gpus: how many GPUs a run is to use.
    """
    todo = [r for r in runs if r.state != DONE]
    counts = count(dict.fromkeys(r.config.stem for r in todo))
    lines = []
    for run in tracked(todo, 'estimating memory'):
        lines.append(f'{run.title}: {run.state}; {_takes(run, counts.get(run.config.stem), gpus)}')
        lines += [f'  {shlex.join(_relative(c))}' for c in run.commands]
    lines.append(f'{len(todo)} of {len(runs)} runs to do, {len(runs) - len(todo)} done.')
    lines.append(
        'Memory is an estimate: parameters, their gradients and optimizer state, and what autograd keeps of one '
        "GPU's batch, from a forward pass on tensors without values; the allocator and temporary tensors add to it."
    )
    return '\n'.join(lines)


def _takes(run: Run, trained: int | None, gpus: int) -> str:
    """Parameters and memory of a run; None stands for SPT, whose file decides."""
    spt = run.work_dir / SPT_FILE
    if trained is None and not spt.is_file():
        return 'what it trains, and its memory, needs the sensitivity first'
    cfg = load_config(run.config, {'model.petl.spt.file': str(spt)} if trained is None else None)
    trained = trained or build_model(cfg, meta=True).plan.count()['trainable']
    return f'trains {trained:,}; {render_memory(estimate(cfg, _batch(cfg, gpus)))}'


def _batch(cfg: Config, gpus: int) -> int:
    batch, recipe = cfg.train_dataloader.batch_size, cfg.get('recipe_gpus', PAPER_GPUS)
    return batch * recipe // gpus if gpus > recipe else batch


def _relative(command: Sequence[str]) -> list[str]:
    """A command as it would be typed at the repository's root, or, once installed, anywhere."""
    command = [part.replace(f'{ROOT / "configs"}{os.sep}', f'configs{os.sep}') for part in command]
    if INSTALLED and command[0] == sys.executable and Path(command[1]).parent == TOOLS:
        return ['vpetl', Path(command[1]).stem, *command[2:]]
    return ['python' if part == sys.executable else part.replace(f'{TOOLS}{os.sep}', 'tools/') for part in command]


def carry_out(
    runs: Sequence[Run],
    say: Callable[[str], None] = print,
    call: Callable[[Sequence[str]], int] | None = None,
) -> list[Record]:
    """Do what is left, one run after the other; a failing one does not stop the others.

    Args:
        runs: of :func:`plan`.
        say: told of progress.
        call: runs a command and returns its exit status. Defaults to a subprocess.

    Returns:
        The new records.

    Raises:
        UserError: at the end, naming the runs that failed.
    """
    todo = [r for r in runs if r.state != DONE]
    records, failed, seconds = [], [], []
    for k, run in enumerate(todo, 1):
        left = f'; about {_hours(sum(seconds) / len(seconds) * (len(todo) - k + 1))} left' if seconds else ''
        say(f'[{k}/{len(todo)}] {run.title}: {run.state}{left}')
        started = time.monotonic()
        why = _carry_out_one(run, call or _call)
        if why:
            failed.append(f'{run.title} ({why})')
            say(f'[{k}/{len(todo)}] {run.title} failed: {why}')
            continue
        seconds.append(time.monotonic() - started)
        records.append(read_record(run.work_dir / FILE))
        say(f'[{k}/{len(todo)}] {run.title}: top-1 {records[-1].top1:.2f} in {_hours(seconds[-1])}')
    say(f'{len(runs) - len(todo)} runs were done before, {len(records)} are new, {len(failed)} failed.')
    if failed:
        raise UserError(f'{len(failed)} of {len(todo)} runs failed: {"; ".join(failed)}.')
    return records


def _carry_out_one(run: Run, call: Callable[[Sequence[str]], int]) -> str | None:
    """Why a run failed, or None."""
    for command in run.commands:
        status = call(command)
        if status == 130:
            raise KeyboardInterrupt
        if status:
            tool = next(Path(part).name for part in command if part.startswith(str(TOOLS)))
            return f'{tool} ended with status {status}'
    return None if (run.work_dir / FILE).is_file() else f'no {FILE} was left'


def _call(command: Sequence[str]) -> int:
    # dist_train.sh calls "python": this one
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    return subprocess.run(command, env={**os.environ, 'PATH': path}, check=False).returncode


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} minutes' if seconds < 7200 else f'{seconds / 3600:.1f} hours'
