"""A few real training steps on one batch, and what they leave."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine import Config
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...engine.building import naming
from ...engine.runner import PETLRunner
from ...preparation.progress import progress
from ..allocate import peak_bytes

NUDGE = 1e-2  # how far trained values move, relative to their mean size, so that none is zero


@dataclass
class Trial:
    """What a few optimizer steps on one batch did.

    Args:
        losses: of each step, in training mode, before it.
        seconds: of each step.
        peak: the peak memory in bytes.
        reached: trained tensors with a gradient other than zero in some step, or once all are nudged away from zero.
        touched: trained tensors that got a gradient at all, if only zeros.
        changed: what is frozen, and changed.
        statistics: of frozen BatchNorms, changed as in any training.
        finite: whether all losses, and what was trained, stayed finite.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    reached: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)
    statistics: list[str] = field(default_factory=list)
    finite: bool = True

    @property
    def step(self) -> float:
        """The median seconds of a step; the first, which also prepares much, counts only if it is alone."""
        times = sorted(self.seconds[1:] or self.seconds)
        return (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2


def batch_of(runner: PETLRunner, dataset: Dataset, indices: Sequence[int]) -> Any:
    """Return samples of the training data as a batch, as the run's loader collates them."""
    with naming(runner.cfg, 'train_dataloader'):
        return runner.train_dataloader.collate_fn([dataset[index] for index in indices])


def tried(cfg: Config, runner: PETLRunner, batch: Any, steps: int) -> Trial:
    """Take optimizer steps on a batch; the model is left as they leave it.

    Args:
        cfg: the experiment.
        runner: before its first step.
        batch: of the training data.
        steps: how many.
    """
    model, trial = runner.plain_model, Trial()
    before = digests(model)
    start = {name: value.clone() for name, value in model.plan.state_dict().items()}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with noting(model, trial), progress('training steps', steps) as advance:
        for _ in range(steps):
            _take(cfg, runner, batch, trial)
            advance(1)
    trial.peak = peak_bytes()
    trained = [p for p in model.parameters() if p.requires_grad]
    trial.finite = all(map(math.isfinite, trial.losses)) and all(bool(p.isfinite().all()) for p in trained)
    after, own = digests(model), statistics(model)
    moved = [name for name, digest in before.items() if after.get(name) != digest]
    trial.changed = [name for name in moved if name not in own]
    trial.statistics = [name for name in moved if name in own]
    if any(name not in trial.reached for name, p in model.named_parameters() if p.requires_grad):
        model.plan.load_state_dict(start)
        _nudge(runner, batch, trial)
    return trial


def _take(cfg: Config, runner: PETLRunner, batch: Any, trial: Trial) -> None:
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    runner.model.train()
    synchronise()
    started = time.perf_counter()
    with naming(cfg, 'a training step'):
        losses = runner.model.train_step(batch, runner.optim_wrapper)
    synchronise()
    trial.seconds.append(time.perf_counter() - started)
    trial.losses.append(losses['loss'].item())


@contextmanager
def noting(model: nn.Module, trial: Trial) -> Iterator[None]:
    """Inside, note which trained tensors get a gradient, and which one that is not all zero."""
    seen: dict[str, Tensor] = {}

    def note(name: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        some = (gradient.isfinite() & (gradient != 0)).any()
        seen[name] = seen[name] | some if name in seen else some  # nothing waits for a GPU here

    handles = [
        p.register_post_accumulate_grad_hook(lambda p, n=n: note(n, p))
        for n, p in model.named_parameters()
        if p.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        trial.touched |= {*seen}
        trial.reached |= {name for name, some in seen.items() if some}


def _nudge(runner: PETLRunner, batch: Any, trial: Trial) -> None:
    """Go back once more without dropping anything at random, from where no trained value is zero.

    A weight behind a zero one gets no gradient before that one has moved. In a step, drop-path may have left out the
    block; at a learning rate that is zero, or far too high, steps show nothing.
    """
    model = runner.plain_model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            size = NUDGE * max(float(parameter.abs().mean()), 0.1)
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    model.eval()
    with noting(model, trial):
        with runner.optim_wrapper.optim_context(model):
            data = model.data_preprocessor(batch, True)
            losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
    model.zero_grad(set_to_none=True)


def digests(model: nn.Module) -> dict[str, str]:
    """Return a hash of everything that training should not change, by name: frozen parameters, and buffers."""
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    frozen |= dict(model.named_buffers())
    return {name: _digest(tensor) for name, tensor in frozen.items()}


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(values.numpy(), digest_size=16).hexdigest()


def statistics(model: nn.Module) -> set[str]:
    """Return the buffers that a BatchNorm changes in training."""
    return {
        f'{name}.{buffer}'
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'running_mean', None), Tensor)
        for buffer, _ in module.named_buffers()
    }
