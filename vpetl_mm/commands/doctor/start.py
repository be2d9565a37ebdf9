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
from ...petl.deltas import Deltas
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


def _named(model: nn.Module, plain: bool) -> list[str]:
    """Return the names of the deltas that say that they start at the plain backbone, or that they do not.

    What the sites of a delta share says neither.
    """
    said: dict[str, set[bool | None]] = {}
    for deltas in (m for m in model.modules() if isinstance(m, Deltas)):
        for name, delta in deltas.items():
            said.setdefault(name, set()).add(getattr(delta, 'starts_plain', None))
    return sorted(name for name, values in said.items() if (values - {None} == {True} if plain else False in values))


def check_plain_start(runner: PETLRunner, batch: Any) -> Verdict | None:
    """Compare the features with those without the deltas that should not change them yet; None without deltas."""
    own, found = features_of(runner, batch)[1], []
    for plain in (True, False):
        if names := _named(runner.plain_model, plain):
            with without(runner.plain_model, names):
                found.append((plain, names, _apart(own, features_of(runner, batch)[1])))
    if not found:
        return None
    if found[0][0] and not found[0][2] <= PLAIN:
        said = f'should start at the plain backbone, where features are {found[0][2]:.2g} apart'
        return Verdict('zero start', WRONG, f'{", ".join(found[0][1])} {said}')
    said = '; '.join(
        f'{", ".join(names)} {_how(plain, len(names))} (features {d:.2g} apart)' for plain, names, d in found
    )
    return Verdict('zero start', OK, said)


def _how(plain: bool, count: int) -> str:
    if plain:
        return 'start at the plain backbone' if count > 1 else 'starts at the plain backbone'
    return 'do not start at it, and need not' if count > 1 else 'does not start at it, and need not'


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest feature."""
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
        return Verdict('start', NOTE, f'{said}: a start far from equal logits')
    return Verdict('start', OK, said)
