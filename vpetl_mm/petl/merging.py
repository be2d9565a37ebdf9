"""Merging: deltas that update weights become part of them, which leaves the plain model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UserError
from .addition import add
from .delta import Delta
from .host import change_of_weights, detach
from .layout import layout_of


def merge(model: nn.Module) -> nn.Module:
    """Merge every delta of a PETL model into the weights that it tunes, in place.

    The model then has the plain model's modules, keys, FLOPs and speed. Its outputs are the same up to rounding.

    Args:
        model: with its trained weights; nothing in it trains afterwards.

    Returns:
        ``model``.

    Raises:
        UserError: where a delta does not update weights (an adapter, PATT, a prompt); nothing is then changed.
    """
    check_mergeable(model)
    backbone = model.backbone
    parameters = dict(backbone.named_parameters())
    for name, host in _hosts(backbone).items():
        biases = [(parameters[n], start) for n, start in layout_of(backbone).biases(backbone, name)]
        _merge(host, biases)
        detach(host)
    model.plan.forget()
    return model


@torch.no_grad()
def _merge(host: nn.Module, biases: list[tuple[nn.Parameter, int]]) -> None:
    """Change the weights of a linear layer or a norm as its deltas' own definitions say.

    Args:
        host: with the deltas, each of which sees the host's own weights, as in the forward pass.
        biases: the parameters that make up the bias of its output, each with the position where it begins.
    """
    changes = [_change(host, delta.eval()) for delta in host.deltas.values()]
    for weight, bias in changes:
        host.weight += weight
        for parameter, start in biases if bias is not None else ():
            parameter.add_(bias[start : start + len(parameter)])


def _change(host: nn.Module, delta: Delta) -> tuple[Tensor, Tensor | None]:
    if not delta.is_linear:
        return change_of_weights(host, delta)
    identity = torch.eye(host.in_features, dtype=host.weight.dtype, device=host.weight.device)
    return add(torch.zeros_like(host.weight.t()), delta(identity)).t(), None


def check_mergeable(model: nn.Module) -> None:
    """Raise :class:`UserError` where a delta of a PETL model, on any device, does not update weights."""
    for name, host in _hosts(model.backbone).items():
        for delta in host.deltas.values():
            if not _is_mergeable(delta):
                raise UserError(
                    f'{type(delta).__name__} on backbone.{name} does not update weights and cannot be merged '
                    'into them; LoRA and SPT with structured="LoRA" can.'
                )


def is_mergeable(model: nn.Module) -> bool:
    """Tell whether :func:`merge` would take every delta of a PETL model."""
    return all(map(_is_mergeable, model.plan.deltas()))


def _is_mergeable(delta: Delta) -> bool:
    kind = type(delta)
    outside = kind.before is not Delta.before or kind.after is not Delta.after
    return (kind.is_linear or kind.update is not Delta.update) and not outside


def _hosts(backbone: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have deltas, by name."""
    return {n: m for n, m in backbone.named_modules() if isinstance(getattr(m, 'deltas', None), nn.ModuleDict)}
