"""Merging: deltas that update weights become part of them, which leaves the plain model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from .addition import add
from .delta import Delta
from .host import change_of_weights, deltas_of, strip
from .inner import Projection
from .layouts import layout_of


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
    merge_hosts(model.backbone)
    model.plan.forget()
    return model


def merge_hosts(backbone: nn.Module) -> None:
    """Merge the deltas of every host in ``backbone``, all of which can be, in place."""
    layout, own = layout_of(backbone), {'': None, **dict(backbone.named_parameters())}
    tied = [n for n, _ in backbone.named_parameters(remove_duplicate=False) if n not in own]
    if tied:
        raise UserError(f'{tied[0]} shares its weight with another layer; merging would change both.')
    for name, host in _hosts(backbone).items():
        if deltas_of(host):
            _merge(host, [(own[w], own[b], *rows) for w, b, *rows in layout.parameters(backbone, name)])
        strip(host)


@torch.no_grad()
def _merge(host: nn.Module, parts: Sequence[tuple[Tensor | None, Tensor | None, int, int]]) -> None:
    """Change the weights of a linear layer or a norm as its deltas' own definitions say.

    Args:
        host: with the deltas, each of which sees the host's own weights, as in the forward pass.
        parts: the weights and biases that make up its own, None for none, their first row and their number of rows.
    """
    for to_weight, to_bias in [_change(_layer(host), delta.eval()) for delta in deltas_of(host)]:
        for weight, bias, start, rows in parts:
            if weight is not None:
                weight.add_(to_weight[start : start + rows])
            if bias is not None and to_bias is not None:
                bias.add_(to_bias[start : start + rows])


def _layer(host: nn.Module) -> nn.Module | Projection:
    """Return what a host's deltas update: itself, or the projection of an attention with three layers."""
    return Projection(host, host.inner) if hasattr(host, 'inner') else host


def _change(layer: nn.Module | Projection, delta: Delta) -> tuple[Tensor, Tensor | None]:
    """Return what a delta adds to the weight and the bias, by its own definition."""
    if not delta.is_linear:
        return change_of_weights(layer, delta)
    weight = layer.weight
    identity = torch.eye(layer.in_features, dtype=weight.dtype, device=weight.device)
    return add(torch.zeros_like(weight.t()), delta(identity)).t(), None


def check_mergeable(model: nn.Module) -> None:
    """Raise :class:`UserError` where a delta of a PETL model, on any device, does not update weights."""
    check_hosts(model.backbone, 'backbone')


def check_hosts(backbone: nn.Module, path: str) -> None:
    """Raise :class:`UserError` where a delta in ``backbone``, which is at ``path``, does not update weights."""
    for name, host in _hosts(backbone).items():
        where = f'{path}.{name}' if path else name
        for delta in host.deltas.values():
            if not _is_mergeable(delta):
                raise UserError(
                    f'{type(delta).__name__} on {where} does not update weights and cannot be merged '
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
