"""Merging: deltas that are updates of weights become part of them, and the plain model is left."""

from __future__ import annotations

from torch import nn

from ..errors import UserError
from .delta import Delta
from .host import detach
from .layout import layout_of


def merge(model: nn.Module) -> nn.Module:
    """Add every delta of a PETL model to the weights it tunes and take it off, in place.

    What is left has the plain model's modules, keys, FLOPs and speed, and gives the same outputs but for rounding.

    Args:
        model: its trained weights loaded; nothing of it trains afterwards.

    Returns:
        ``model``.

    Raises:
        UserError: where a delta is no update of weights (an adapter, PATT, a prompt); nothing is changed then.
    """
    check_mergeable(model)
    backbone = model.backbone
    parameters = dict(backbone.named_parameters())
    for name, host in _hosts(backbone).items():
        biases = [(parameters[n], start) for n, start in layout_of(backbone).biases(backbone, name)]
        for delta in host.deltas.values():
            delta.merge(host, biases)
        detach(host)
    model.plan.forget()
    return model


def check_mergeable(model: nn.Module) -> None:
    """Raise :class:`UserError` where a delta of a PETL model, on any device, is no update of weights."""
    for name, host in _hosts(model.backbone).items():
        for delta in host.deltas.values():
            if not _is_update(delta):
                raise UserError(
                    f'{type(delta).__name__} on backbone.{name} is no update of weights and cannot be merged into '
                    'them; LoRA and SPT with structured="LoRA" can.'
                )


def is_mergeable(model: nn.Module) -> bool:
    """Whether :func:`merge` would take every delta of a PETL model."""
    return all(map(_is_update, model.plan.deltas()))


def _is_update(delta: Delta) -> bool:
    return type(delta).merge is not Delta.merge


def _hosts(backbone: nn.Module) -> dict[str, nn.Module]:
    """The modules that have deltas, by name."""
    return {n: m for n, m in backbone.named_modules() if isinstance(getattr(m, 'deltas', None), nn.ModuleDict)}
