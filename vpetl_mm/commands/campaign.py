"""Plan, train, test and resume the runs that a table lacks, by calling the commands in tools/."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mmengine import Config

from vpetl_cli.shipped import INSTALLED, ROOT, TOOLS, find_config

from ..config import load_config
from ..engine.record import FILE, find_records, read_record
from ..errors import UserError
from ..measure.count import tracked, trains_by_budget
from ..measure.memory import estimate, memory_line
from ..paper.tables import counts_as_printed

PAPER_GPUS = 4  # a recipe's batch is that of one of so many GPUs
NEW, RESUME, TEST, DONE = 'train and test', 'resume and test', 'test', 'done'
SPT_FILE = 'spt.safetensors'  # in a run's folder: what SPT tunes


@dataclass(frozen=True)
class Run:
    """One experiment with one seed.

    Args:
        config: the config file.
        seed: the run's.
        work_dir: where its files go.
        state: what is left to do: ``NEW``, ``RESUME``, ``TEST`` or ``DONE``.
        commands: the command lines that do it, in order.
    """

    config: Path
    seed: int
    work_dir: Path
    state: str
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def title(self) -> str:
        """Return the run's name for messages."""
        return f'{self.config.stem}, seed {self.seed}'


def batch_options(cfg: Config, gpus: int) -> list[str]:
    """Return the ``--cfg-options`` that keep the recipe's total batch, that of ``recipe_gpus`` (4 by default) GPUs.

    Fewer GPUs accumulate gradients; more take smaller batches each.

    Raises:
        UserError: when ``gpus`` neither divides the recipe's number nor is a multiple of it, or does not divide the
            total batch.
    """
    recipe = cfg.get('recipe_gpus', PAPER_GPUS)
    if gpus < 1 or (recipe % gpus and gpus % recipe):
        raise UserError(f'--gpus {gpus} cannot keep the batch of {recipe} GPUs: take a divisor or a multiple of it.')
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
    # positionals come first: argparse would read one after --cfg-options as one of its values
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
    """Return what is left to do for every experiment and seed, finished ones included.

    Args:
        names: experiments.
        configs: the folder of the configs.
        work_dirs: where runs go, ``<work_dirs>/<config>/seed_<s>``; a record anywhere below it counts.
        gpus: GPUs per run. Defaults to 1.
        seeds: seeds 0 to ``seeds - 1``. Defaults to 1.
        held: experiment -> the number of seeds whose results the metafile already has.

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
            finished = (name, seed) in done or seed < (held or {}).get(name, 0)
            state = DONE if finished else _state(cfg, work_dir)
            commands = () if finished else _commands(cfg, config, work_dir, state, seed, gpus)
            runs.append(Run(config, seed, work_dir, state, commands))
    return runs


def _state(cfg: Config, work_dir: Path) -> str:
    if _last_adapter(cfg, work_dir).is_file():
        return TEST
    return RESUME if any(work_dir.glob('epoch_[0-9]*.pth')) else NEW


def dry_run(runs: Sequence[Run], gpus: int = 1) -> Iterator[str]:
    """Yield what would be run, line by line, as building the models takes minutes.

    Each run has its trainable parameters, an estimate of its memory on each of ``gpus`` GPUs, and its commands.
    """
    todo = [r for r in runs if r.state != DONE]
    for run in todo:
        yield f'{run.title}: {run.state}; {_needs(run, gpus)}'
        yield from (f'  {shlex.join(_as_typed(c))}' for c in run.commands)
    yield f'{len(todo)} of {len(runs)} runs to do, {len(runs) - len(todo)} done.'
    yield (
        'Memory is an estimate: parameters, gradients, optimizer state, and what autograd keeps of one '
        "GPU's batch, from a forward pass on tensors without values; the allocator and temporary tensors add to it."
    )


def _needs(run: Run, gpus: int) -> str:
    """Return a run's trainable parameters and memory; with SPT, its file decides them."""
    cfg = load_config(run.config)
    if trains_by_budget(cfg.model):
        if not (run.work_dir / SPT_FILE).is_file():
            return 'its parameters and memory are known once the sensitivity is measured'
        cfg.model.petl.spt.file = str(run.work_dir / SPT_FILE)
    batch, recipe = cfg.train_dataloader.batch_size, cfg.get('recipe_gpus', PAPER_GPUS)
    memory = estimate(cfg, batch * recipe // gpus if gpus > recipe else batch)
    return f'trains {memory.trained:,}; {memory_line(memory)}'


def _as_typed(command: Sequence[str]) -> list[str]:
    """Return a command as it is typed in the root of the repository or, once installed, anywhere."""
    command = [part.replace(f'{ROOT / "configs"}{os.sep}', f'configs{os.sep}') for part in command]
    if INSTALLED and command[0] == sys.executable and Path(command[1]).parent == TOOLS:
        return ['vpetl', Path(command[1]).stem, *command[2:]]
    return ['python' if part == sys.executable else part.replace(f'{TOOLS}{os.sep}', 'tools/') for part in command]


def _call(command: Sequence[str]) -> int:
    # dist_train.sh calls "python", which must be this one
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    return subprocess.run(command, env={**os.environ, 'PATH': path}, check=False).returncode


def carry_out(
    runs: Sequence[Run],
    say: Callable[[str], None] = print,
    call: Callable[[Sequence[str]], int] = _call,
) -> None:
    """Do what is left, one run after the other; a failing run does not stop the others.

    Args:
        runs: from :func:`plan`.
        say: prints a line of progress.
        call: runs a command and returns its exit status. Defaults to a subprocess.

    Raises:
        UserError: at the end, naming the runs that failed.
    """
    todo = [r for r in runs if r.state != DONE]
    failed, seconds = [], []
    for k, run in enumerate(todo, 1):
        left = f'; about {_time(sum(seconds) / len(seconds) * (len(todo) - k + 1))} left' if seconds else ''
        say(f'[{k}/{len(todo)}] {run.title}: {run.state}{left}')
        started = time.monotonic()
        why = _carry_out_one(run, call)
        if why:
            failed.append(f'{run.title} ({why})')
            say(f'[{k}/{len(todo)}] {run.title} failed: {why}')
            continue
        seconds.append(time.monotonic() - started)
        top1 = read_record(run.work_dir / FILE).top1
        say(f'[{k}/{len(todo)}] {run.title}: top-1 {top1:.2f} in {_time(seconds[-1])}')
    say(f'{len(runs) - len(todo)} runs were done before, {len(seconds)} are new, {len(failed)} failed.')
    if failed:
        raise UserError(f'{len(failed)} of {len(todo)} runs failed: {"; ".join(failed)}.')


def _carry_out_one(run: Run, call: Callable[[Sequence[str]], int]) -> str | None:
    """Do one run; return why it failed, or None."""
    for command in run.commands:
        status = call(command)
        if status == 130:
            raise KeyboardInterrupt
        if status:
            tool = next(Path(part).name for part in command if part.startswith(str(TOOLS)))
            return f'{tool} ended with status {status}'
    return None if (run.work_dir / FILE).is_file() else f'it left no {FILE}'


def _time(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
