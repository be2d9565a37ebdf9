"""An experiment's speed and memory beside those of the host library's stock model, fully tuned."""

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
from rich.progress import track
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from ..errors import UserError
from ..models.build import build_model
from ..petl import merge
from ..petl.merging import is_mergeable
from .live_bytes import LiveBytes, alive_after_forward, loss_of

STOCK = dict(_delete_=True, deltas={}, train=['all'], attention=None)
SIDE = 2048  # of the matrices whose product is the machine's measured peak


@dataclass(frozen=True)
class Job:
    """One thing that is timed.

    Args:
        what: ``'training step'`` or ``'inference'``, as the table's row begins.
        model: ``'experiment'``, ``'stock'`` or ``'merged'``.
        bf16: under bfloat16 autocast.
    """

    what: str
    model: str
    bf16: bool = False

    @property
    def row(self) -> str:
        """The row of the table that it stands in."""
        return self.what + ', merged' * (self.model == 'merged') + ', bf16' * self.bf16


@dataclass
class Result:
    """What was measured.

    Args:
        seconds: of each job, the median of the rounds.
        flops: of each job in float32, in the round of that median (a dropped path that is not computed is no work).
        saved: model -> bytes that a training step's forward pass leaves for the backward pass, no path dropped.
        peak: model -> the most bytes alive in a training step, parameters and gradients included, no path dropped.
        matmul: bfloat16 or not -> operations a second of a product of large matrices, in the same rounds.
    """

    seconds: dict[Job, float] = field(default_factory=dict)
    flops: dict[Job, float] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    matmul: dict[bool, float] = field(default_factory=dict)


def benchmark(
    cfg: Config, batch: int = 1, frames: int = 8, size: int = 224, rounds: int = 5, bf16: bool = False
) -> Result:
    """Measure in one run, in shuffled rounds, after one round of warming up.

    Every round has a seed of its own, so that experiment and stock model drop the same paths.

    Args:
        cfg: the experiment.
        batch: clips or images a step.
        frames: frames a clip.
        size: the side of a frame in pixels.
        rounds: how many times each thing is timed; the median counts.
        bf16: also time the experiment under bfloat16 autocast, against the stock model in float32.

    Raises:
        UserError: for a batch of one before a BatchNorm.
    """
    models = _models(cfg)
    if batch < 2 and any(getattr(getattr(m, m.head_name), 'bn', None) is not None for m in models.values()):
        raise UserError("The head's BatchNorm needs --batch 2 or more.")
    shape = (frames, size, size) if 'cls_head' in cfg.model else (size, size)  # images have no frames
    inputs = torch.randn(batch, 3, *shape, device=get_device())
    result = Result()
    _time(list(_jobs(models, bf16)), models, inputs, rounds, result)
    for name in ('experiment', 'stock'):
        result.saved[name], result.peak[name] = _memory(models[name], inputs)
    return result


def _models(cfg: Config) -> dict[str, nn.Module]:
    cfg = cfg.copy()
    cfg.model.base = None  # the time does not depend on the weights' values
    stock = cfg.copy()
    stock.merge_from_dict({'model': dict(petl=STOCK)})
    models = {'experiment': build_model(cfg).to(get_device()), 'stock': build_model(stock).to(get_device())}
    if any(models['experiment'].plan.deltas()) and is_mergeable(models['experiment']):
        models['merged'] = merge(copy.deepcopy(models['experiment']))
    return models


def _jobs(models: dict[str, nn.Module], bf16: bool) -> Iterator[Job]:
    for precision in (False, True)[: 1 + bf16]:
        yield from (Job('training step', name, precision) for name in ('experiment', 'stock'))
        yield from (Job('inference', name, precision) for name in models)


def _work(job: Job, models: dict[str, nn.Module], inputs: Tensor) -> Callable[[], Any]:
    model = models[job.model]

    def train() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        with torch.autocast(inputs.device.type, torch.bfloat16, job.bf16):
            loss = loss_of(model, inputs)
        loss.backward()

    @torch.no_grad()
    def infer() -> None:
        model.eval()
        with torch.autocast(inputs.device.type, torch.bfloat16, job.bf16):
            getattr(model, model.head_name)(model.backbone(inputs))

    return train if job.what == 'training step' else infer


def _time(jobs: list[Job], models: dict[str, nn.Module], inputs: Tensor, rounds: int, result: Result) -> None:
    """Fill in ``seconds``, ``flops`` and ``matmul``."""
    times: dict[Job, list[tuple[float, int]]] = {job: [] for job in jobs}
    products: dict[bool, list[float]] = {bf16: [] for bf16 in {job.bf16 for job in jobs}}
    works = {job: _work(job, models, inputs) for job in jobs}
    for turn in track(range(rounds + 1), 'Rounds', transient=True):
        todo = [*jobs, *products]
        for job in random.sample(todo, len(todo)):
            if isinstance(job, bool):
                products[job].append(_product(job, inputs.device))
                continue
            torch.manual_seed(turn)
            seconds = _timed(works[job])
            if turn:
                times[job].append((seconds, turn))
    for job, values in times.items():
        result.seconds[job] = median(seconds for seconds, _ in values)
        middle = min(values, key=lambda value: abs(value[0] - result.seconds[job]))
        if not job.bf16 and job.model != 'merged':
            torch.manual_seed(middle[1])
            result.flops[job] = _flops(works[job])
    result.matmul = {bf16: 2 * SIDE**3 / median(values) for bf16, values in products.items()}


def _timed(work: Callable[[], Any]) -> float:
    _synchronise()
    started = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - started


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _product(bf16: bool, device: torch.device) -> float:
    """Seconds of one product of large matrices, the best of three."""
    a = torch.ones(SIDE, SIDE, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    return min(_timed(lambda: a @ a) for _ in range(3))


def _flops(work: Callable[[], Any]) -> float:
    in_place = {torch.ops.aten.addmm_: lambda y, a, b, out_shape=None, **_: addmm_flop(y, a, b)}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        work()
    return counter.get_total_flops()


def _memory(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Bytes left for the backward pass, and the most bytes in a training step, no path dropped."""
    rates = {m: m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')}
    for module in rates:
        module.drop_prob = 0.0
    model.zero_grad(set_to_none=True)
    own = [*model.parameters(), *model.buffers()]
    saved = alive_after_forward(model, inputs)
    live = LiveBytes()
    live.leave_out([*own, inputs])
    with live:
        loss_of(model, inputs).backward()
    for module, rate in rates.items():
        module.drop_prob = rate
    return saved, live.peak + sum(t.nbytes for t in own)


def render(result: Result) -> str:
    """The result as a Markdown table with the ratio to stock, and a line about the machine."""
    lines = ['| | experiment | stock, full tuning | ratio |', '| --- | ---: | ---: | ---: |']
    lines += [f'| {title} | {a:,.2f} {unit} | {b:,.2f} {unit} | {a / b:.2f} |' for title, a, b, unit in _rows(result)]
    speeds = ', '.join(f'{"bf16" if k else "float32"} {v / 1e9:,.0f} GFLOP/s' for k, v in result.matmul.items())
    return '\n'.join([*lines, '', f'A product of {SIDE} x {SIDE} matrices, in the same rounds: {speeds}.'])


def _rows(result: Result) -> Iterator[tuple[str, float, float, str]]:
    """Title, the experiment's figure, stock's, and the unit."""
    for job, seconds in result.seconds.items():
        if job.model == 'stock':
            continue
        stock = result.seconds[Job(job.what, 'stock')]
        if job.bf16:
            yield job.row, seconds, result.seconds[Job(job.what, 'stock', True)], 's'
            yield f'{job.row} against stock float32', seconds, stock, 's'
        else:
            yield job.row, seconds, stock, 's'
    for what in ('training step', 'inference'):
        ours, stock = (Job(what, name) for name in ('experiment', 'stock'))
        yield f'{what}, work', result.flops[ours] / 1e9, result.flops[stock] / 1e9, 'GFLOP'
        shares = (100 * result.flops[j] / result.seconds[j] / result.matmul[False] for j in (ours, stock))
        yield f'{what}, share of the matmul peak', *shares, '%'
    for title, figures in (('saved activations', result.saved), ('peak memory of a step', result.peak)):
        yield title, figures['experiment'] / 2**20, figures['stock'] / 2**20, 'MiB'
