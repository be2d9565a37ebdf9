"""Measure every method on one host against full tuning and plain inference, in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine import Config
from torch import Tensor, nn

from ..errors import UserError
from .benchmark import BenchmarkResult, Job, check_takes, inputs_for, merged_of, model_of, time_jobs
from .count import tracked
from .live_bytes import alive_after_forward
from .methods import is_video, methods_of, on_host, trained_in_backbone

FULL = 'full'  # the method that the others are compared with; its inference is the plain model's
HOST = 'stock, full'  # the host library's own model, without anything of ours
MERGED = ', merged'


@dataclass
class Measured:
    """What was measured of one method.

    Args:
        trains: how many parameters train, the head's left out.
        saved: bytes that a forward pass leaves for the backward pass.
        step: seconds of a training step, forward and backward pass, in each round.
        inference: seconds of a forward pass in each round.
        merged: seconds of that of the merged model; empty where the method does not merge.
        refused: why the host does not take the method; '' where it does.
    """

    trains: int = 0
    saved: int = 0
    step: list[float] = field(default_factory=list)
    inference: list[float] = field(default_factory=list)
    merged: list[float] = field(default_factory=list)
    refused: str = ''


def benchmark_methods(
    cfg: Config, names: str = 'all', batch: int = 1, frames: int = 8, size: int = 224, rounds: int = 5
) -> tuple[dict[str, Measured], BenchmarkResult]:
    """Measure methods in rounds, after one of warm-up; each round runs everything in an order of its own.

    All models share the plain model's weights, so that memory holds these once. No path is dropped, so that all
    methods do the same work in each round.

    Args:
        cfg: an experiment: its host, and how that computes. Its own method does not count.
        names: the methods; see :func:`~.methods.methods_of`.
        batch: clips or images per step.
        frames: frames per clip.
        size: the side of a frame in pixels.
        rounds: how many times each job is timed.

    Returns:
        method -> what was measured, full tuning and the host library's own model first; and the times of all jobs.

    Raises:
        UserError: as :func:`~.benchmark.benchmark`, and for a method that does not exist.
    """
    methods = methods_of(names, is_video(cfg.model))
    full = methods_of(FULL)[FULL]
    methods = {FULL: full, HOST: dict(full, attention=None, fast=False, gelu='exact'), **methods}
    found = {name: Measured() for name in methods}
    models: dict[str, nn.Module] = {}
    inputs = inputs_for(cfg, batch, frames, size, rounds)
    for name, petl in tracked(methods.items(), 'building'):
        try:
            models |= _models(name, on_host(cfg, petl), inputs, models.get(FULL))
        except UserError as error:
            if name == FULL:
                raise
            found[name].refused = str(error)
    result = BenchmarkResult()
    time_jobs([*_jobs(models)], models, inputs, rounds, result)
    for name in tracked([n for n in found if n in models], 'saved activations'):
        alive_after_forward(models[name], inputs)  # creates what is created once
        found[name].saved = alive_after_forward(models[name], inputs)
        found[name].trains = trained_in_backbone(models[name])
        found[name].step = result.rounds[Job('training step', name)]
        found[name].inference = result.rounds[Job('inference', name)]
        found[name].merged = result.rounds.get(Job('inference', name + MERGED), [])
    return found, result


def _models(name: str, cfg: Config, inputs: Tensor, plain: nn.Module | None) -> dict[str, nn.Module]:
    """Build a method's model and, where it can be merged, the merged one, with the weights of ``plain``."""
    model = model_of(cfg)
    for module in model.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.0
    check_takes(_sharing(model, plain), inputs)
    merged = merged_of(model, cfg)  # with weights of its own, as merging writes into them
    return {name: model} if merged is None else {name: model, name + MERGED: _sharing(merged, plain)}


def _sharing(model: nn.Module, plain: nn.Module | None) -> nn.Module:
    """Let the parameters of a model be those of ``plain``, where it has them; their values do not change times."""
    own = {} if plain is None else dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if name in own and own[name].shape == parameter.shape:
            parameter.data = own[name].data
    return model


def _jobs(models: Mapping[str, Any]) -> Iterator[Job]:
    yield from (Job('training step', name) for name in models if not name.endswith(MERGED))
    yield from (Job('inference', name) for name in models)
