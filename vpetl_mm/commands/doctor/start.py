"""A model before its first step: what its deltas change, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...engine.runner import PETLRunner
from ...models.features import pooled
from ...petl.host import Deltas
from .verdict import NOTE, OK, WRONG, Verdict

PLAIN = 1e-5  # how far features may be from those of the plain backbone, relative to the largest
FAR = 0.5  # how far the first loss may be from that of equal logits, relative to it


@torch.no_grad()
def features_of(runner: PETLRunner, batch: Any) -> tuple[Any, Tensor]:
    """Return what the head is given in evaluation mode, and the last features, (B, ...), in float32."""
    model = runner.plain_model.eval()
    given = model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
    given = given[0] if isinstance(given[-1], dict) else given  # mmaction2 adds the neck's losses
    return given, pooled(given).float()


@contextmanager
def without(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Inside, the deltas of these names do nothing."""
    taken = []
    for deltas in (m for m in model.modules() if isinstance(m, Deltas)):
        taken.append((deltas, dict(deltas._modules)))
        for name in {*deltas} & {*names}:
            del deltas[name]
    try:
        yield
    finally:
        for deltas, own in taken:
            deltas._modules.clear()
            deltas._modules.update(own)


def check_plain_start(runner: PETLRunner, batch: Any) -> Verdict | None:
    """Compare features with and without the deltas that should not change them yet; None without deltas.

    A delta says so by ``starts_plain``; one that says nothing is left out.
    """
    model = runner.plain_model
    named: dict[str, set[bool | None]] = {}
    for deltas in (m for m in model.modules() if isinstance(m, Deltas)):
        for name, delta in deltas.items():
            named.setdefault(name, set()).add(getattr(delta, 'starts_plain', None))
    if not named:
        return None
    plain = sorted(name for name, said in named.items() if said == {True})
    others = sorted(name for name, said in named.items() if False in said)
    if not plain and not others:
        return None
    own = features_of(runner, batch)[1]
    apart = {}
    for names in filter(None, (plain, others)):
        with without(model, names):
            apart[tuple(names)] = _apart(own, features_of(runner, batch)[1])
    beside = f'{", ".join(others)} should not ({apart[tuple(others)]:.2g} of the largest)' if others else ''
    if not plain:
        return Verdict('zero start', OK, f'no delta starts at the plain backbone: {beside}')
    distance, names = apart[tuple(plain)], ', '.join(plain)
    if not distance <= PLAIN:
        said = f'{names} should start at the plain backbone, and change its features by {distance:.2g} of the largest'
        return Verdict('zero start', WRONG, said)
    said = f'{names}: features are those of the plain backbone (apart by {distance:.1g} of the largest)'
    return Verdict('zero start', OK, f'{said}; {beside}' if beside else said)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))


class Logits(NamedTuple):
    """The answers of a model for a batch, in evaluation mode.

    Args:
        low, high, spread: their least, their largest, and their standard deviation.
        same: whether all samples, of several, have the same features.
        classes: how many there are.
    """

    low: float
    high: float
    spread: float
    same: bool
    classes: int


@torch.no_grad()
def logits_of(runner: PETLRunner, batch: Any) -> Logits:
    """Return what a model answers before its first step."""
    model = runner.plain_model
    given, features = features_of(runner, batch)
    logits = getattr(model, model.head_name)(given)
    same = len(features) > 1 and bool((features == features[:1]).all())
    low, high, spread = (float(value) for value in (logits.min(), logits.max(), logits.std(unbiased=False)))
    return Logits(low, high, spread, same, logits.shape[-1])


def check_start(logits: Logits, loss: float) -> Verdict:
    """Compare the loss of the first step with that of equal logits, ln(classes)."""
    equal = math.log(logits.classes)
    said = f'loss {loss:.3f}, and ln({logits.classes}) is {equal:.3f}'
    if logits.low == logits.high:
        said += f'; all logits are {logits.low:.2g}'
    else:
        said += f'; logits from {logits.low:.2g} to {logits.high:.2g}, standard deviation {logits.spread:.2g}'
    if not math.isfinite(loss):
        return Verdict('start', WRONG, f'the loss of the first step is {loss}')
    if logits.same:
        return Verdict('start', WRONG, f'{said}; all samples of the batch have the same features')
    if abs(loss - equal) > FAR * equal:
        return Verdict('start', NOTE, f'{said}: the first answers are far from equal')
    return Verdict('start', OK, said)
