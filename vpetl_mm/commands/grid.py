"""Plan, train, test and resume the runs that a table lacks, by calling the commands in tools/."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from mmengine import Config

from vpetl_cli.shipped import TOOLS, find_config

from ..campaign.attempt import last_line
from ..campaign.driver import AGAIN, ELSEWHERE, FAILED, STARTED, Engine, Event, drive
from ..campaign.job import Job
from ..campaign.tool import call
from ..config import load_config
from ..engine.record import FILE, Record, find_records, read_record
from ..engine.sensitivity_command import SPT_FILE, sensitivity_command
from ..errors import UserError
from ..measure.count import tracked, trains_by_budget
from ..paper.tables import counts_as_printed

PAPER_GPUS = 4  # a recipe's batch is that of one of so many GPUs
NEW, RESUME, TEST, DONE = 'train and test', 'resume and test', 'test', 'done'


@dataclass(frozen=True)
class Run:
    """One experiment with one seed.

    Args:
        config: the config file.
        seed: the run's.
        work_dir: where its files go.
        gpus: that it trains on. Defaults to 1.
        finished: whether there is a result of it elsewhere. Defaults to False.
        configs: the folder of the configs.
    """

    config: Path
    seed: int
    work_dir: Path
    gpus: int = 1
    finished: bool = False
    configs: Path = Path('configs')

    @property
    def title(self) -> str:
        """Return the run's name for messages."""
        return f'{self.config.stem}, seed {self.seed}'

    @property
    def state(self) -> str:
        """Return what is left to do now: ``NEW``, ``RESUME``, ``TEST`` or ``DONE``."""
        if self.is_done():
            return DONE
        if _last_adapter(config_of(self.config), self.work_dir).is_file():
            return TEST
        return RESUME if any(self.work_dir.glob('epoch_[0-9]*.pth')) else NEW

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Return the command lines that do what is left, in order."""
        state = self.state
        return () if state == DONE else _commands(self, config_of(self.config), state)

    def is_done(self) -> bool:
        """Return whether the run has its result; one that cannot be read is none."""
        return self.finished or self.result() is not None

    def result(self) -> Record | None:
        """Return the run's result in its folder, if there is one that can be read."""
        with suppress(UserError):
            record = read_record(self.work_dir / FILE)
            if (record.config, record.seed) == (self.config.stem, self.seed) and counts_as_printed(
                record, self.configs
            ):
                return record
        return None

    def carry_out(self) -> None:
        """Do what is left.

        Raises:
            UserError: for a command that fails, with the last line that it printed.
        """
        for command in self.commands:
            if status := call(command):
                tool = next(Path(part).name for part in command if part.startswith(str(TOOLS)))
                said = last_line(self.work_dir)
                raise UserError(f'{tool} ended with status {status}' + f': {said}' * bool(said))

    def job(self) -> Job:
        """Return the run as a job."""
        return Job(self.title, self.work_dir, self.carry_out, self.is_done)


@cache
def config_of(config: Path) -> Config:
    """Return an experiment's config, read once; it is not to be changed."""
    return load_config(config)


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


def _commands(run: Run, cfg: Config, state: str) -> tuple[tuple[str, ...], ...]:
    config, work_dir, seed, gpus = run.config, run.work_dir, run.seed, run.gpus
    options = ['--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}', *batch_options(cfg, gpus)]
    spt, first = work_dir / SPT_FILE, []
    if trains_by_budget(cfg.model):
        options.append(f'model.petl.spt.file={spt}')
        if not spt.is_file():
            first.append(sensitivity_command(config, spt, [f'randomness.seed={seed}']))
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
    held: Mapping[str, Collection[int]] | None = None,
) -> list[Run]:
    """Return what is left to do for every experiment and seed, finished ones included.

    Args:
        names: experiments.
        configs: the folder of the configs.
        work_dirs: where runs go, ``<work_dirs>/<config>/seed_<s>``; a record anywhere below it counts.
        gpus: GPUs per run. Defaults to 1.
        seeds: seeds 0 to ``seeds - 1``. Defaults to 1.
        held: experiment -> the seeds whose results the metafile already has.

    Raises:
        UserError: for a number of GPUs that does not fit.
    """
    if seeds < 1:
        raise UserError(f'--seeds must be at least 1, got {seeds}.')
    records = find_records(work_dirs, broken=[])  # of a run whose result cannot be read, the test is done again
    done = {(r.config, r.seed) for r in records.values() if counts_as_printed(r, configs)}
    runs = []
    for name in tracked(names, 'planning'):
        config = find_config(configs / f'{name}.py')
        batch_options(config_of(config), gpus)  # is refused now, and not by each run
        for seed in range(seeds):
            finished = (name, seed) in done or seed in (held or {}).get(name, ())
            runs.append(Run(config, seed, work_dirs / name / f'seed_{seed}', gpus, finished, configs))
    return runs


def carry_out(runs: Sequence[Run], engine: Engine, say: Callable[[str], None] = print) -> None:
    """Do what is left, side by side; a failing run does not stop the others.

    Args:
        runs: from :func:`plan`.
        engine: carries them out.
        say: prints a line of progress.

    Raises:
        UserError: at the end, naming the runs that failed.
    """
    todo = {r.title: r for r in runs if not r.is_done()}
    failed, done, started = [], 0, time.monotonic()
    for event in drive([r.job() for r in todo.values()], engine):
        if event.what == FAILED:
            failed.append(f'{event.job.name} ({event.reason.removesuffix(".")})')
        elif event.what == DONE:
            done += 1
        over = done + len(failed)
        left = (time.monotonic() - started) / over * (len(todo) - over) if over else 0
        say(f'[{over}/{len(todo)}] {_told(event, todo[event.job.name])}' + f'; about {_time(left)} left' * (left > 0))
    say(f'{len(runs) - len(todo)} runs were done before, {done} are new, {len(failed)} failed.')
    if failed:
        raise UserError(f'{len(failed)} of {len(todo)} runs failed: {"; ".join(failed)}.')


def _told(event: Event, run: Run) -> str:
    """Return what happened to a run, for people."""
    if event.what == DONE:
        result = run.result()
        return f'{run.title}: ' + (f'top-1 {result.top1:.2f}, ' if result else '') + f'took {_time(event.seconds)}'
    return f'{run.title}' + {
        STARTED: f': {run.state}',
        FAILED: f' failed: {event.reason.removesuffix(".")}',
        AGAIN: ': its process was killed, and is started again',
        ELSEWHERE: ': another process is at it',
    }.get(event.what, '')


def _time(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
