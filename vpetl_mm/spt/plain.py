"""SPT on any model that the place table knows, in plain PyTorch: measure, choose, then ``adapt(model, spt=...)``.

::

    found = sensitivity(model, loader, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    plan = adapt(model, spt=allocate(model, found, budget='0.4M'))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..petl import found, heads_of
from ..petl.adapt import check_plain
from .allocation import Allocation, allocated, tensors_sha256
from .budget import parse_budget
from .choice import Settings
from .sensitivity import Sensitivity, sensitivity_of
from .tuning import SPT, measured_as

MODEL = 'the model given'


def sensitivity(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor], most: int = 16
) -> Sensitivity:
    """Measure how much tuning each weight of a model would lower the loss, to first order (SPT, Sec. 1).

    Args:
        model: plain, with its weights loaded and its head, on the device to measure on; unchanged afterwards.
        batches: of training data, such as a DataLoader.
        loss: called as ``loss(model, batch)``; returns the mean loss of the batch.
        most: at most how many batches to take. Defaults to 16; a few hundred samples are enough.

    Raises:
        UserError: for a model that the table does not know, no batch, a loss that is no number of the model, and a
            gradient that is not finite.
    """
    check_plain(model)
    path = found(model).path
    modes = {m: m.training for m in model.modules()}
    trained = {p: p.requires_grad for p in model.parameters()}
    try:
        return sensitivity_of(model, path, batches, _checked(loss), _size, most)
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)


def allocate(
    model: nn.Module,
    sensitivity: Sensitivity,
    budget: int | str,
    structured: str = 'LoRA',
    rank: int = 8,
    alpha: float = 10.0,
    beta: float = 5.0,
    dropout: float = 0.1,
) -> SPT:
    """Choose what to tune under a budget.

    Args:
        model: that was measured.
        sensitivity: of :func:`sensitivity`.
        budget: in parameters, without the head: a number, or text such as ``'0.4M'``.
        structured: what tunes whole matrices, ``'LoRA'`` (default) or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck. Defaults to 8.
        alpha, beta: of :class:`~.choice.Settings`.
        dropout: on the input of what tunes whole matrices. Defaults to 0.1.

    Returns:
        What ``adapt(model, spt=...)`` takes; ``.allocation`` says what is tuned.

    Raises:
        UserError: for a wrong option, and a budget that is too small or larger than the backbone.
    """
    where = found(model)
    backbone, heads = model.get_submodule(where.path), heads_of(model)
    own = [h.removeprefix(f'{where.path}.') if where.path else h for h in heads]
    state = {n: v for n, v in backbone.state_dict().items() if not n.startswith(tuple(f'{h}.' for h in own))}
    base = dict(file=MODEL, sha256=tensors_sha256(state))
    settings = Settings(structured, rank, alpha, beta)
    chosen = allocated(backbone, sensitivity, parse_budget(budget), settings, base)
    return tuning_of(chosen, dropout)


def tuning_of(allocation: Allocation, dropout: float = 0.1) -> SPT:
    """Return what ``adapt(model, spt=...)`` takes, of an allocation that was read or chosen."""
    options = dict(structured=allocation.structured, rank=allocation.rank, dropout=dropout)
    return SPT.of(dict(options, allocation=allocation, control=allocation.control, **measured_as(allocation)))


def _checked(loss: Callable[[nn.Module, Any], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    def value_of(model: nn.Module, batch: Any) -> Tensor:
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise UserError(f'loss(model, batch) returns one number that depends on the model, got {value!r:.80}.')
        return value

    return value_of


def _size(batch: Any) -> int:
    """Return the number of samples: the length of the first tensor in a batch; 0 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, Sequence) else ()
    return next((n for part in parts if not isinstance(part, str) and (n := _size(part))), 0)
