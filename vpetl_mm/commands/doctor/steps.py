"""What a few training steps say: gradients, frozen weights, the learning rate, time and memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from mmengine import Config
from torch import nn

from ...engine.entries import at
from ...engine.runner import PETLRunner
from ...engine.schedules import unfinished
from .reading import Reading
from .trial import Trial
from .verdict import NOTE, OK, WRONG, Verdict, some, worst

SLOW, WORTH = 1.2, 600  # loading is told if it takes so many times a step, in a run of so many seconds
RISES, EXPLODES = 2.0, 100.0  # how many times its start the loss may reach in a few steps on one batch


def check_gradients(model: nn.Module, trial: Trial) -> Verdict:
    """Name trained tensors that never get a gradient, grouped by delta or train name and by module."""
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    dead = [name for name in trained if name not in trial.reached]
    if not dead:
        return Verdict('gradients', OK, f'reach all {len(trained)} trained tensors, {_count(trained.values())}')
    owners, parts, lines = model.plan.owners, [], []
    for group in dict.fromkeys(owners[name] for name in dead):
        members = [name for name in dead if owners[name] == group]
        whole = sum(size for name, size in trained.items() if owners[name] == group)
        parts.append(f'{_count(trained[n] for n in members)} of {group} (of {whole:,})')
        lines += _by_module(members, trained, trial)
    return Verdict('gradients', WRONG, f'never reach {", ".join(parts)}', lines)


def _by_module(members: Sequence[str], sizes: dict[str, int], trial: Trial) -> list[str]:
    """Return a line for each module with such tensors, a delta being one module."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name in members:
        place, delta, rest = name.partition('.deltas.')
        at_module = f'{place}{delta}{rest.partition(".")[0]}' if delta else name.rpartition('.')[0]
        modules[at_module].append(name)
    lines = []
    for module, names in modules.items():
        tensors = ', '.join(name.removeprefix(f'{module}.') for name in names)
        why = 'zero in every step' if {*names} <= trial.touched else 'the loss does not depend on them'
        lines.append(f'{module}: {tensors}; {_count(sizes[n] for n in names)}, {why}')
    return lines


def _count(sizes: Iterable[int]) -> str:
    return f'{sum(sizes):,} parameters'


def check_frozen(trial: Trial) -> Verdict:
    """Tell whether something frozen changed; the statistics of a BatchNorm do, as training changes them."""
    steps = _plural(len(trial.losses), 'step')
    if trial.changed:
        said = f'{len(trial.changed)} frozen tensors changed in {steps}'
        one = f'{trial.changed[0]} is frozen, and changed in {steps}'
        several = trial.changed if trial.changed[1:] else []
        return Verdict('frozen', WRONG, said if several else one, some(several))
    beside = f', but for {len(trial.statistics)} statistics of BatchNorm' if trial.statistics else ''
    return Verdict('frozen', OK, f'nothing changed in {steps}{beside}')


def check_rate(cfg: Config, runner: PETLRunner, trial: Trial, gpus: int) -> Verdict:
    """Tell the learning rate after scaling, and whether the loss stays finite with it."""
    groups = runner.optim_wrapper.optimizer.param_groups
    rates = sorted({group['lr'] for group in groups})
    said = _rates(rates) + _scaling(cfg, gpus)
    losses = ', '.join(f'{loss:.3g}' for loss in trial.losses)
    if not rates[-1]:
        return Verdict('learning rate', WRONG, f'{said}: nothing would change')
    if not math.isfinite(trial.losses[0]):
        return Verdict('learning rate', NOTE, f'{said}; not tried, as the first loss is not finite')
    risen = trial.losses[-1] / trial.losses[0]
    if not trial.finite or risen > EXPLODES:
        after = ', and what trains is then not finite' if math.isfinite(trial.losses[-1]) and not trial.finite else ''
        return Verdict('learning rate', WRONG, f'{said} is too high: the loss on one batch goes {losses}{after}')
    said += f'; the loss on one batch goes {losses}'
    notes = [text.rstrip('.') for text in unfinished(cfg.get('param_scheduler'), cfg.train_cfg.max_epochs)]
    if risen > RISES:
        notes.append('the loss rises at the full rate; where the config warms up, it begins lower')
    return Verdict('learning rate', worst(False, notes), said, notes)


def _rates(rates: Sequence[float]) -> str:
    return f'{rates[0]:.4g}' if len(rates) == 1 else f'{rates[0]:.4g} to {rates[-1]:.4g}'


def _scaling(cfg: Config, gpus: int) -> str:
    """Return how the rate came about."""
    scaling, batch = cfg.get('auto_scale_lr') or {}, cfg.train_dataloader.batch_size
    if not scaling.get('enable'):
        return ' (not scaled)'
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    factors = [f'{batch}', *([f'{gpus} GPUs'] if gpus > 1 else []), *([f'{steps} accumulated'] if steps > 1 else [])]
    base = at(cfg, 'optim_wrapper.optimizer.lr')
    return f' ({base:g} x {" x ".join(factors)} / {scaling["base_batch_size"]})'


def check_cost(cfg: Config, runner: PETLRunner, trial: Trial, reading: Reading, gpus: int) -> Verdict:
    """Tell the time of a step, the peak memory, and how long all epochs take; validation comes on top.

    Args:
        cfg: the experiment.
        runner: its data loader has the iterations of an epoch.
        trial: the steps.
        reading: of training samples.
        gpus: how many the run will have.
    """
    batch, workers = cfg.train_dataloader.batch_size, cfg.train_dataloader.num_workers
    load = batch * mean(reading.seconds.values()) / max(1, workers)
    step = trial.step
    each = max(step, load) if workers else step + load
    epochs, iterations = cfg.train_cfg.max_epochs, math.ceil(len(runner.train_dataloader) / gpus)
    total = epochs * iterations * each
    where = 'of the GPU' if next(runner.model.parameters()).is_cuda else 'of this process'
    loading = f'{_seconds(load)} to load its {batch} samples' + (f' by {workers} workers' if workers > 1 else '')
    said = f'{_seconds(step)} a step, {loading}; peak memory {where} {trial.peak / 1e9:.2f} GB'
    said += f'; {_plural(epochs, "epoch")} of {_plural(iterations, "step")}: {_duration(total)}'
    slow = load > SLOW * step and total > WORTH
    notes = ['loading takes longer than a step: more num_workers, or smaller files'] if slow else []
    if cfg.get('cache_features'):
        notes.append('cache_features: the backbone runs in its first passes alone, and most epochs take far less')
    if cfg.get('compile_backbone'):
        notes.append('measured without compile_backbone')
    return Verdict('cost', worst(False, notes), said, notes)


def _plural(count: int, what: str) -> str:
    return f'{count:,} {what}{"" if count == 1 else "s"}'


def _seconds(value: float) -> str:
    return f'{value:.2f} s' if value >= 0.1 else f'{1000 * value:.0f} ms'


def _duration(seconds: float) -> str:
    if seconds < 60:
        return _plural(math.ceil(seconds), 'second')
    return _plural(math.ceil(seconds / 60), 'minute') if seconds < 3600 else f'{seconds / 3600:,.1f} hours'
