"""What runs would take: their commands, parameters, memory and GPU hours, without starting anything."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mmengine import Config

from vpetl_cli.shipped import INSTALLED, ROOT, TOOLS

from ..config import load_config
from ..measure.cost import cost_of, is_mixed
from ..measure.count import trains_by_budget
from ..measure.gpus import GPU, PAPERS, USED, gpu_of
from ..measure.memory import estimate, memory_line
from ..measure.step_time import seconds_of_a_step
from ..measure.work import Work, trains_head_alone, work_of
from .grid import DONE, NEW, PAPER_GPUS, SPT_FILE, TEST, Run, config_of

HOUR = 3600
MEMORY = (
    'Memory is an estimate: parameters, gradients, optimizer state, and what autograd keeps of one '
    "GPU's batch, from a forward pass on tensors without values; the allocator and temporary tensors add to it."
)


@dataclass
class Hours:
    """The GPU hours of several runs.

    Args:
        measured: of runs whose step time has been measured.
        computed: of the others, from FLOPs.
        unknown: how many runs have neither.
        float32: the computed ones, if all computed in float32.
        heads: the computed ones of runs that train the head alone.
        cached: those, with their features cached.
        head_runs: how many they are.
        steps: (config, GPUs) -> measured seconds of a step, None where no log has one.
    """

    measured: float = 0.0
    computed: float = 0.0
    unknown: int = 0
    float32: float = 0.0
    heads: float = 0.0
    cached: float = 0.0
    head_runs: int = 0
    steps: dict[tuple, float | None] = field(default_factory=dict)


def forecast(runs: Sequence[Run], gpus: int = 1, gpu: str = PAPERS) -> Iterator[str]:
    """Yield what would be run, line by line: each run's state, parameters, memory, GPU hours and commands; the sums.

    Args:
        runs: from :func:`.grid.plan`.
        gpus: GPUs per run. Defaults to 1.
        gpu: the kind whose peak computes the hours. Defaults to the paper's.

    Raises:
        UserError: for a GPU that is not known, and for a corrupt log.
    """
    name, peak = gpu_of(gpu)
    todo, hours = [r for r in runs if not r.is_done()], Hours()
    for run in todo:
        yield f'{run.title}: {run.state}; {_needs(run, gpus)}; {_hours(run, gpus, peak, hours)}'
        yield from (f'  {shlex.join(_as_typed(c))}' for c in run.commands)
    yield f'{len(todo)} of {len(runs)} runs to do, {len(runs) - len(todo)} done.'
    yield from _sums(hours, name, peak)
    yield MEMORY


def _batch(cfg: Config, gpus: int) -> int:
    """Return the samples a step on one GPU: more GPUs than the recipe's share its total batch."""
    batch, recipe = cfg.train_dataloader.batch_size, cfg.get('recipe_gpus', PAPER_GPUS)
    return batch * recipe // gpus if gpus > recipe else batch


def _needs(run: Run, gpus: int) -> str:
    """Return a run's trainable parameters and memory; with SPT, its file decides them."""
    cfg = config_of(run.config)
    if trains_by_budget(cfg.model):
        file = run.work_dir / SPT_FILE
        if not file.is_file():
            return 'its parameters and memory are known once the sensitivity is measured'
        cfg = load_config(run.config, {'model.petl.spt.file': str(file)})
    memory = estimate(cfg, _batch(cfg, gpus))
    return f'trains {memory.trained:,}; {memory_line(memory)}'


def _hours(run: Run, gpus: int, peak: GPU, sums: Hours) -> str:
    """Return a run's GPU hours as text, and add them to the sums."""
    cfg = config_of(run.config)
    cost = cost_of(cfg)
    work = partial(work_of, cost=cost, gpus=gpus, batch=_batch(cfg, gpus), epochs=_epochs_left(run, cfg))
    if (plain := work(cfg)) is None:
        sums.unknown += 1
        return 'GPU hours unknown, as its lists of samples are not there'
    if (seconds := _measured(run, cfg, gpus, sums)) is not None:
        measured = (plain.steps + plain.passes * plain.forward / plain.step) * seconds / HOUR
        sums.measured += measured
        return f'{_number(measured)} GPU hours (measured step)'
    full, mixed = _computed(plain, peak.float32), _computed(plain, peak.bfloat16)
    computed = mixed if is_mixed(cfg) else full
    sums.computed += computed
    sums.float32 += full
    if trains_head_alone(cfg) and not cfg.get('cache_features'):
        sums.head_runs += 1
        sums.heads += computed
        sums.cached += computed * work(_cached(cfg)).flops / plain.flops
    most = 'at most ' if trains_by_budget(cfg.model) else ''
    return f'{most}{_number(computed)} GPU hours (computed)'


def _measured(run: Run, cfg: Config, gpus: int, sums: Hours) -> float | None:
    """Return the seconds of a step in runs of the same experiment on as many GPUs, with any seed."""
    if cfg.get('cache_features'):
        return None
    key = (run.config, gpus)
    if key not in sums.steps:
        counts = cfg.optim_wrapper.get('accumulative_counts', 1)
        recipe = cfg.get('recipe_gpus', PAPER_GPUS)
        counts = counts * recipe // gpus if gpus < recipe else counts
        sums.steps[key] = seconds_of_a_step(run.work_dir.parent, _batch(cfg, gpus), counts)
    return sums.steps[key]


def _epochs_left(run: Run, cfg: Config) -> int:
    epochs = cfg.train_cfg.max_epochs
    if run.state in (TEST, DONE):
        return 0
    if run.state == NEW:
        return epochs
    done = [int(m[1]) for f in run.work_dir.glob('epoch_*.pth') if (m := re.fullmatch(r'epoch_(\d+)\.pth', f.name))]
    return max(0, epochs - max(done, default=0))


def _computed(work: Work, teraflops: float) -> float:
    return work.flops / (teraflops * 1e12 * USED) / HOUR


def _cached(cfg: Config) -> Config:
    return load_config(cfg, {'cache_features': dict(views=1)})


def _number(hours: float) -> str:
    return f'{hours:,.1f}' if hours >= 1 else f'{hours:.2g}'


def _sums(hours: Hours, name: str, peak: GPU) -> Iterator[str]:
    if hours.measured:
        yield f'{_number(hours.measured)} GPU hours from measured steps, on whichever GPUs the logs are of.'
    rates = f'{peak.bfloat16:g} TFLOP/s in bfloat16 and {peak.float32:g} in float32 ({peak.source})'
    unknown = f'; {hours.unknown} runs are in neither sum' * bool(hours.unknown)
    if hours.computed or unknown:
        computed = f'{_number(hours.computed)} GPU hours on {name}, computed from FLOPs'
        yield f'In all {computed} at {USED:.0%} of {rates}, no path dropped{unknown}.'
    if not hours.computed:
        return
    heads = ''
    if hours.head_runs:
        one = hours.head_runs == 1
        who = f'the {hours.head_runs} run{" that trains" if one else "s that train"} the head alone take{"s" * one}'
        cached = f'{_number(hours.cached)} with cache_features=dict(views=1) and no drop-path'
        heads = f'; {who} {_number(hours.heads)}, or {cached}'
    yield f'Of the computed: all in float32 {_number(hours.float32)}{heads}.'


def _as_typed(command: Sequence[str]) -> list[str]:
    """Return a command as it is typed in the root of the repository or, once installed, anywhere."""
    command = [part.replace(f'{ROOT / "configs"}{os.sep}', f'configs{os.sep}') for part in command]
    if INSTALLED and command[0] == sys.executable and Path(command[1]).parent == TOOLS:
        return ['vpetl', Path(command[1]).stem, *command[2:]]
    return ['python' if part == sys.executable else part.replace(f'{TOOLS}{os.sep}', 'tools/') for part in command]
