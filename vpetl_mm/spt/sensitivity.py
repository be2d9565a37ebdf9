"""Measures sensitivity: how much tuning a parameter would lower the loss, to first order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .units import Unit, units_of

CONTROLS = ('random', 'shuffled')
# the head behind which gradients are computed: as training starts, or trained on the frozen backbone's features
HEADS = ('start', 'probe')
# what is squared: the gradient of a batch's mean loss, as published, or of each sample's loss
GRADIENTS = ('batch', 'sample')


@dataclass
class Sensitivity:
    """The sensitivity of every entry of every unit.

    Args:
        units: of the backbone.
        values: of all entries, one unit after another, (N,).
        batches: number of batches it was measured on.
        samples: number of samples in them.
        loss: mean loss of the batches.
    """

    units: list[Unit]
    values: np.ndarray
    batches: int = 0
    samples: int = 0
    loss: float = 0.0

    def parts(self) -> list[np.ndarray]:
        """Return the values of each unit, flat."""
        return np.split(self.values, np.cumsum([u.numel for u in self.units])[:-1])

    def control(self, kind: str, seed: int) -> Sensitivity:
        """Return values for a control experiment: the same rule, without knowledge of the task.

        Args:
            kind: ``'random'`` draws every value; ``'shuffled'`` exchanges values between units of the same shape and
                permutes them inside, so that the same number of matrices is tuned structurally, but in other places.
            seed: of the draw.
        """
        rng = np.random.default_rng(seed)
        if kind == 'random':
            values = rng.random(len(self.values), dtype=np.float32)
        else:
            values = np.concatenate(_shuffled(self.units, self.parts(), rng))
        return Sensitivity(self.units, values, self.batches, self.samples, self.loss)


def _shuffled(units: Sequence[Unit], parts: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    by_shape = defaultdict(list)
    for i, unit in enumerate(units):
        by_shape[unit.shape].append(i)
    dealt = list(parts)
    for members in by_shape.values():
        for to, source in zip(members, rng.permutation(members), strict=True):
            dealt[to] = rng.permutation(parts[source])
    return dealt


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    batches: int = 16,
    advance: Callable[[], None] = lambda: None,
    settled: bool = False,
) -> Sensitivity:
    """Measure the sensitivity of a PETL model's backbone; see :func:`sensitivity_of`.

    Args:
        model: a PETL model, initialised, with a plain backbone, on the device to measure on; left without gradients.
        loader: of training batches, as a Runner builds it.
        batches: at most how many to take. Defaults to 16.
        advance: called after each.
        settled: the head's BatchNorm has the statistics of the training data. Defaults to False.

    Raises:
        UserError: when there is no batch, every gradient is 0, or one is not finite, naming the parameter.
    """

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if len(batch['data_samples']) == 1 and any(m.training for m in model.modules()):
            raise UserError("The head's BatchNorm needs more than one sample; choose another --batch-size.")
        return model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))[0]

    return sensitivity_of(
        model, 'backbone', loader, loss, lambda batch: len(batch['data_samples']), batches, advance, settled
    )


def sensitivity_of(
    model: nn.Module,
    backbone: str,
    loader: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    size: Callable[[Any], int],
    batches: int = 16,
    advance: Callable[[], None] = lambda: None,
    settled: bool = False,
) -> Sensitivity:
    """Sum the squared gradients of each batch's mean loss (SPT, Sec. 1; cross-entropy in our heads).

    Each gradient is squared, added and freed at once, so that memory holds one more number per weight and what a
    backward pass needs. Dropout and drop-path are off; a head's BatchNorm uses the statistics of its batch, as in the
    first step of training, unless its own have settled.

    Args:
        model: with a plain backbone, on the device to measure on; left in eval mode, without gradients.
        backbone: its path in the model, '' for the model itself.
        loader: of training batches.
        loss: returns the mean loss of a batch, a tensor of one number.
        size: returns the number of samples of a batch.
        batches: at most how many to take. Defaults to 16.
        advance: called after each.
        settled: BatchNorms have the statistics of the training data. Defaults to False.

    Raises:
        UserError: when there is no batch, every gradient is 0, or one is not finite, naming the parameter.
    """
    inside = model.get_submodule(backbone)
    units = units_of(inside)
    values = torch.zeros(sum(u.numel for u in units), device=next(model.parameters()).device)
    losses, samples = [], 0
    _quiet(model, settled)
    with _squared_into(values, model, inside, units):
        for batch in islice(loader, batches):
            value = loss(model, batch)
            value.backward()
            losses.append(value.item())
            samples += size(batch)
            _check_finite(backbone, units, values, len(losses), losses[-1])
            advance()
    if not losses:
        raise UserError('There is no training data to measure sensitivity on: the training loader is empty.')
    mean_loss = sum(losses) / len(losses)
    if not values.any():
        raise UserError(
            f'Nothing is sensitive: every gradient is 0, at a mean loss of {mean_loss:g}. Has the task one class?'
        )
    return Sensitivity(units, values.cpu().numpy(), len(losses), samples, mean_loss)


@contextmanager
def _squared_into(values: Tensor, model: nn.Module, backbone: nn.Module, units: Sequence[Unit]) -> Iterator[None]:
    """Add the square of every gradient of ``units`` to its part of ``values``; no other gradient is computed."""
    parameters = dict(backbone.named_parameters())
    held = {unit.param: parameters[unit.param] for unit in units}  # in the order of the units
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    hooks = []
    for parameter, part in zip(held.values(), values.split([p.numel() for p in held.values()]), strict=True):
        parameter.requires_grad_(True)
        add = partial(_add_square, part.view_as(parameter))
        hooks.append(parameter.register_post_accumulate_grad_hook(add))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in held.values():
            parameter.requires_grad_(False)


def _add_square(part: Tensor, parameter: nn.Parameter) -> None:
    part.addcmul_(parameter.grad, parameter.grad)
    parameter.grad = None


def _quiet(model: nn.Module, settled: bool) -> None:
    """Turn off randomness; a BatchNorm whose running statistics have not settled uses its batch's."""
    model.eval()
    for module in () if settled else model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()


def _check_finite(backbone: str, units: Sequence[Unit], values: Tensor, batch: int, loss: float) -> None:
    """Raise :class:`UserError` for the model's first unit whose sensitivity is not finite."""
    if torch.isfinite(values.sum()):
        return
    inside = f'{backbone}.' if backbone else ''
    for unit, part in zip(units, values.split([u.numel for u in units]), strict=True):
        if not torch.isfinite(part).all():
            raise UserError(
                f'The gradient of {inside}{unit.name} is not finite, or too large to be squared, in batch {batch} '
                f'(its loss is {loss:g}); check the pre-trained weights and the data.'
            )
