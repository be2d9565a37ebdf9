"""Measure an experiment's speed and memory against the host library's stock model, fully tuned."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from mmengine import Config
from mmengine.device import get_device
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from ..engine.compiled import check_compiled, compile_backbone
from ..errors import UserError, reason
from ..models.build import build_model
from ..petl import merge
from ..petl.checks import at_least_one
from ..petl.merging import is_mergeable
from .count import tracked
from .live_bytes import Footprint, footprint_of, logits_of, loss_of
from .methods import is_video

STOCK = dict(_delete_=True, deltas={}, train=['all'], attention=None, fast=False)
SIDE = 2048  # of the matrices whose product is the machine's measured peak


@dataclass(frozen=True)
class Job:
    """A job to time.

    Args:
        what: ``'training step'`` or ``'inference'``.
        model: ``'experiment'``, ``'stock'``, ``'merged'`` or ``'variant'``; or a method's name.
        bf16: under bfloat16 autocast.
    """

    what: str
    model: str
    bf16: bool = False

    @property
    def row(self) -> str:
        """Return the title of its row in the table."""
        return self.what + f', {self.model}' * (self.model in ('merged', 'variant')) + ', bf16' * self.bf16


@dataclass
class BenchmarkResult:
    """The measurements.

    Args:
        seconds: of each job, the median over the rounds.
        flops: of each job in float32, in the round of the median: skipped paths cost nothing.
        first: the seconds of each job's first run, compilation included.
        rounds: the seconds of each job in each round, in the rounds' order.
        memory: of each model but the merged one.
        matmul: bf16 -> operations per second of a product of large matrices, in the same rounds.
    """

    seconds: dict[Job, float] = field(default_factory=dict)
    flops: dict[Job, float] = field(default_factory=dict)
    first: dict[Job, float] = field(default_factory=dict)
    rounds: dict[Job, list[float]] = field(default_factory=dict)
    memory: dict[str, Footprint] = field(default_factory=dict)
    matmul: dict[bool, float] = field(default_factory=dict)


def benchmark(
    cfg: Config,
    batch: int = 1,
    frames: int = 8,
    size: int = 224,
    rounds: int = 5,
    bf16: bool = False,
    variant: Config | None = None,
) -> BenchmarkResult:
    """Measure everything in one run, in shuffled rounds, after one round of warm-up.

    Each round has its own seed, so that all models drop the same paths.

    Args:
        cfg: the experiment.
        batch: clips or images per step.
        frames: frames per clip.
        size: the side of a frame in pixels.
        rounds: how many times each job is timed; the median counts.
        bf16: also time under bfloat16 autocast.
        variant: another version of the experiment to measure too.

    Raises:
        UserError: for a batch of one before a BatchNorm, a number below 1, or inputs that the model does not accept.
    """
    inputs = inputs_for(cfg, batch, frames, size, rounds)
    models = _models(cfg)
    if variant is not None:
        models['variant'] = model_of(variant)
    for model in models.values():
        check_takes(model, inputs)
    result = BenchmarkResult()
    time_jobs(list(_jobs(models, bf16)), models, inputs, rounds, result)
    result.memory = {name: footprint_of(model, inputs) for name, model in models.items() if name != 'merged'}
    return result


def model_of(cfg: Config) -> nn.Module:
    """Build an experiment's model, its weights drawn at random, compiled where the config says so."""
    check_compiled(cfg)
    cfg = copy.deepcopy(cfg)
    cfg.model.base = None  # the values of the weights do not change the time
    model = build_model(cfg).to(get_device())
    compile_backbone(model, cfg.get('compile_backbone', False))
    return model


def _models(cfg: Config) -> dict[str, nn.Module]:
    stock = cfg.copy()
    stock.merge_from_dict({'model': dict(petl=copy.deepcopy(STOCK)), 'compile_backbone': False})
    models = {'experiment': model_of(cfg), 'stock': model_of(stock)}
    if (merged := merged_of(models['experiment'], cfg)) is not None:
        models['merged'] = merged
    return models


def merged_of(model: nn.Module, cfg: Config) -> nn.Module | None:
    """Return a merged copy of an experiment's model, None where there is nothing to merge or it does not merge."""
    if not any(model.plan.deltas()) or not is_mergeable(model):
        return None
    merged = merge(copy.deepcopy(model))
    compile_backbone(merged, cfg.get('compile_backbone', False))  # a copy is not compiled
    return merged


def inputs_for(cfg: Config, batch: int, frames: int, size: int, rounds: int) -> Tensor:
    """Draw inputs for an experiment, (B, 3, T, H, W) or (B, 3, H, W); raise UserError for a number below 1."""
    for name, value in dict(batch=batch, frames=frames, size=size, rounds=rounds).items():
        at_least_one(f'--{name}', value)
    shape = (frames, size, size) if is_video(cfg.model) else (size, size)  # images have no frames
    return torch.randn(batch, 3, *shape, device=get_device())


def check_takes(model: nn.Module, inputs: Tensor) -> None:
    """Raise :class:`UserError` where a model does not take ``inputs``, or a BatchNorm would see a batch of one."""
    if len(inputs) < 2 and getattr(getattr(model, model.head_name), 'bn', None) is not None:
        raise UserError("The head's BatchNorm needs --batch 2 or more.")
    try:
        logits_of(model, inputs)
    except RuntimeError as error:
        raise UserError(f'The model cannot take inputs of shape {tuple(inputs.shape)}: {reason(error)}') from error


def _jobs(models: dict[str, nn.Module], bf16: bool) -> Iterator[Job]:
    for precision in (False, True)[: 1 + bf16]:
        yield from (Job('training step', name, precision) for name in models if name != 'merged')
        yield from (Job('inference', name, precision) for name in models)


def _work(job: Job, models: dict[str, nn.Module], inputs: Tensor) -> Callable[[], Any]:
    model = models[job.model]

    def train() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        with torch.autocast(inputs.device.type, torch.bfloat16, job.bf16):
            loss = loss_of(model, inputs)
        loss.backward()

    def infer() -> None:
        with torch.autocast(inputs.device.type, torch.bfloat16, job.bf16):
            logits_of(model, inputs)

    return train if job.what == 'training step' else infer


def time_jobs(
    jobs: list[Job], models: dict[str, nn.Module], inputs: Tensor, rounds: int, result: BenchmarkResult
) -> None:
    """Time jobs in shuffled rounds after one of warm-up; fill in all of ``result`` but its memory.

    Args:
        jobs: what to time.
        models: name -> model, as the jobs name them.
        inputs: (B, 3, T, H, W) or (B, 3, H, W), on the models' device.
        rounds: how many times each job is timed; each round draws from a seed of its own.
        result: gets ``seconds``, ``flops``, ``first``, ``rounds`` and ``matmul``.
    """
    result.rounds = {job: [] for job in jobs}
    products: dict[bool, list[float]] = {bf16: [] for bf16 in {job.bf16 for job in jobs}}
    works = {job: _work(job, models, inputs) for job in jobs}
    todo = [*jobs, *products]
    order = [(turn, job) for turn in range(rounds + 1) for job in random.sample(todo, len(todo))]
    for turn, job in tracked(order, 'measuring'):
        if isinstance(job, bool):
            products[job].append(_product(job, inputs.device))
            continue
        if turn and job.what == 'inference':
            works[job]()  # refills the caches after a training step
        torch.manual_seed(turn)
        seconds = _timed(works[job])
        if turn:
            result.rounds[job].append(seconds)
        else:
            result.first[job] = seconds
    for job, values in result.rounds.items():
        result.seconds[job] = median(values)
        middle = min(range(rounds), key=lambda i: abs(values[i] - result.seconds[job]))
        if not job.bf16 and job.model in ('experiment', 'stock'):
            torch.manual_seed(middle + 1)
            result.flops[job] = _flops(works[job])
    result.matmul = {bf16: 2 * SIDE**3 / median(values) for bf16, values in products.items()}


def _timed(work: Callable[[], Any]) -> float:
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronise()
    started = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - started


def _product(bf16: bool, device: torch.device) -> float:
    """Return the seconds of one product of large matrices, the best of three."""
    a = torch.ones(SIDE, SIDE, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    return min(_timed(lambda: a @ a) for _ in range(3))


def _flops(work: Callable[[], Any]) -> float:
    unknown = {torch.ops.aten.addmm_: lambda y, a, b, out_shape=None, **_: mm_flop(a, b)}
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        work()
    return counter.get_total_flops()
