"""Step time and saved activations of an experiment against the host library's stock model, fully tuned."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from mmengine import Config
from mmengine.device import get_device
from torch import nn

from ..errors import UserError
from ..models.build import build_model
from ..petl import merge
from ..petl.merging import is_mergeable

TITLES = dict(
    train_seconds='training step',
    infer_seconds='inference',
    saved_bytes='saved activations',
    merged_seconds='inference, merged',
)
STOCK = dict(_delete_=True, deltas={}, train=['all'], attention=None)


def _models(cfg: Config) -> dict[str, nn.Module]:
    cfg = cfg.copy()
    cfg.model.base = None  # the time does not depend on the weights' values
    stock = cfg.copy()
    stock.merge_from_dict({'model': dict(petl=STOCK)})
    models = {'experiment': build_model(cfg).to(get_device()), 'stock': build_model(stock).to(get_device())}
    if any(models['experiment'].plan.deltas()) and is_mergeable(models['experiment']):
        models['merged'] = merge(copy.deepcopy(models['experiment']))
    return models


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _timed(work: Callable[[], Any]) -> float:
    _synchronise()
    started = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - started


def _loss(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)
    return nn.functional.cross_entropy(_logits(model, clips), labels)


def _logits(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return getattr(model, model.head_name)(model.backbone(inputs))


def _train_step(model: nn.Module, clips: torch.Tensor) -> None:
    model.train()
    model.zero_grad(set_to_none=True)
    _loss(model, clips).backward()


@torch.no_grad()
def _infer(model: nn.Module, clips: torch.Tensor) -> None:
    model.eval()
    _logits(model, clips)


def saved_bytes(model: nn.Module, clips: torch.Tensor) -> int:
    """The bytes that autograd keeps for the backward pass of one step, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = _loss(model, clips)
    total = sum(kept.values())
    del loss
    return total


def benchmark(cfg: Config, batch: int = 1, frames: int = 8, size: int = 224, rounds: int = 5) -> dict[str, dict]:
    """Measure in one run, in shuffled rounds, after one round of warming up.

    Args:
        cfg: the experiment.
        batch: clips or images a step.
        frames: frames a clip.
        size: the side of a frame in pixels.
        rounds: how many times each thing is timed; the median counts.

    Returns:
        ``{what: {'experiment': x, 'stock': y}}``: train_seconds, infer_seconds, saved_bytes, and merged_seconds
        where the deltas can be merged: inference without them.

    Raises:
        UserError: for a batch of one before a BatchNorm.
    """
    models = _models(cfg)
    if batch < 2 and any(getattr(getattr(m, m.head_name), 'bn', None) is not None for m in models.values()):
        raise UserError("The head's BatchNorm needs --batch 2 or more.")
    shape = (frames, size, size) if 'cls_head' in cfg.model else (size, size)  # images have no frames
    clips = torch.randn(batch, 3, *shape, device=get_device())
    works = {
        (what, name): (lambda f=step, m=model: f(m, clips))
        for what, step in (('train_seconds', _train_step), ('infer_seconds', _infer))
        for name, model in models.items()
        if (what, name) != ('train_seconds', 'merged')
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for turn in range(rounds + 1):
        for key in random.sample(list(works), len(works)):
            seconds = _timed(works[key])
            if turn:
                times[key].append(seconds)
    result: dict[str, dict] = {'train_seconds': {}, 'infer_seconds': {}, 'saved_bytes': {}}
    for (what, name), values in times.items():
        result[what][name] = median(values)
    for name in ('experiment', 'stock'):
        result['saved_bytes'][name] = saved_bytes(models[name], clips)
    if merged := result['infer_seconds'].pop('merged', None):
        result['merged_seconds'] = dict(experiment=merged, stock=result['infer_seconds']['stock'])
    return result


def render(result: dict[str, dict]) -> str:
    """The result as a Markdown table with the ratio to stock."""
    lines = ['| | experiment | stock, full tuning | ratio |', '| --- | ---: | ---: | ---: |']
    for what, pair in result.items():
        unit, scale = ('MiB', 2**20) if what == 'saved_bytes' else ('s', 1)
        ours, stock = pair['experiment'] / scale, pair['stock'] / scale
        lines.append(f'| {TITLES[what]} | {ours:,.2f} {unit} | {stock:,.2f} {unit} | {ours / stock:.2f} |')
    return '\n'.join(lines)
