"""Tries methods on a model without values: where each may sit, and whether a forward pass reaches all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError, reason
from ..adapt import adapt
from ..layouts import found
from ..placing import take_off

# what a method is called -> its delta; those of time take the two inputs of a trial for the frames of one clip
METHODS: dict[str, dict[str, Any]] = {
    'PATT': dict(type='PATT', d_bottle=64),
    "PATT, mode='concat'": dict(type='PATT', d_bottle=64, mode='concat'),
    'AdaptMLP': dict(type='AdaptMLP', d_bottle=64),
    "AdaptMLP, mode='sequential'": dict(type='AdaptMLP', d_bottle=64, mode='sequential'),
    "AdaptMLP, source='residual'": dict(type='AdaptMLP', d_bottle=64, source='residual'),
    **{f'LoRA at {place}': dict(type='LoRA', at=place) for place in ('qkv', 'proj', 'fc1', 'fc2')},
    'Prefix': dict(type='Prefix'),
    'Prompt': dict(type='Prompt', num_tokens=10),
    'Prompt, deep=False': dict(type='Prompt', num_tokens=10, deep=False),
    'SSF': dict(type='SSF'),
    'RepAdapter': dict(type='RepAdapter'),
    'DoRA': dict(type='DoRA'),
    'FacT': dict(type='FacT'),
    "FacT, form='TK'": dict(type='FacT', form='TK'),
    'VeRA': dict(type='VeRA'),
    'KAdaptation': dict(type='KAdaptation', n=4),
    'AdapterPlus': dict(type='AdapterPlus'),
    'Convpass': dict(type='Convpass'),
    'Mona': dict(type='Mona'),
    'Compacter': dict(type='Compacter', d_bottle=4),
    'MHPA': dict(type='MHPA'),
    'DTL': dict(type='DTL'),
    'DTL, kernel=3': dict(type='DTL', kernel=3),
    'STAdapter': dict(type='STAdapter', num_frames=2),
    'AIMTime': dict(type='AIMTime', num_frames=2),
}


def tried(
    model: nn.Module, run: Callable[[nn.Module], Any] | None = None, told: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, int, str]]:
    """Yield each method with its number of parameters, and why it does not fit, '' where it does.

    Args:
        model: plain, maybe on the meta device; it is plain again after each.
        run: calls the model, to see that the gradient reaches every parameter of a method. Defaults to None: only
            where a method may sit is looked at.
        told: the methods. Defaults to None, all.
    """
    layout = found(model).layout
    for name, delta in (METHODS if told is None else told).items():
        try:
            with next(model.parameters()).device:
                plan = adapt(model, dict(tried=delta), train=[])
        except UserError as error:
            yield name, 0, str(error).removeprefix('petl.deltas.tried: ')
            continue
        try:
            unreached = [] if run is None else unreached_by(run(model), plan.parameters())
            why = f'{len(unreached)} of its tensors are left out of the forward pass' if unreached else ''
        except Exception as error:  # whatever a model raises
            why = f'the forward pass fails: {reason(error)}'
        yield name, plan.count()['trainable'], why
        take_off(layout, model)


def unreached_by(output: Any, parameters: Iterator[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters that an output does not depend on."""
    parameters = list(parameters)
    sums = [t.sum() for t in tensors_in(output) if t.requires_grad]
    if not sums:
        return parameters
    grads = torch.autograd.grad(sum(sums), parameters, allow_unused=True)
    return [p for p, grad in zip(parameters, grads, strict=True) if grad is None]


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of floating-point numbers in a model's output, at any depth."""
    if isinstance(output, Tensor):
        yield from [output] if output.is_floating_point() else []
    elif isinstance(output, (Mapping, list, tuple)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from tensors_in(part)
