"""Merging: deltas that update weights become part of them, which leaves the plain model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from .delta import Delta
from .deltas import Deltas, deltas_of
from .host import strip
from .inner import Projection, inside
from .layouts import Layout, layout_of
from .output import bias_of, change_of_weights
from .update import new_bias


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
    hosts = _hosts(backbone)
    layers = {n: _layer(layout, backbone, n) for n in hosts}
    parts = {n: [(own[w], own[b], *rows) for w, b, *rows in layout.parameters(backbone, n)] for n in hosts}
    for name, host in hosts.items():
        _check_biases(name, layers[name], deltas_of(host), parts[name], layout.turns_keys(backbone))
    for name, host in hosts.items():
        _merge(layers[name], deltas_of(host), parts[name])
    for module in backbone.modules():
        if isinstance(module._modules.get('deltas'), Deltas):
            strip(module)


# the weights and biases that make up a layer's own, None for none, their first row and their number of rows
Parts = Sequence[tuple[Tensor | None, Tensor | None, int, int]]


def _layer(layout: Layout, backbone: nn.Module, name: str) -> nn.Module | Projection:
    """Return what a host's deltas update: itself, or the projection of the attention that it is, or belongs to."""
    host, attention = backbone.get_submodule(name), backbone.get_submodule(name.rpartition('.')[0])
    if (inner := layout.inner_of(host)) is not None:
        return Projection(host, inner)
    inner = layout.inner_of(attention)
    is_qkv = inner is not None and inner.weights == (f'{name.rpartition(".")[2]}.weight',)
    return Projection(attention, inner) if is_qkv else host


@torch.no_grad()
def _check_biases(
    name: str, layer: nn.Module | Projection, deltas: Sequence[Delta], parts: Parts, turns_keys: bool
) -> None:
    """Refuse a change of a bias that the host does not have, unless it cannot be seen.

    A constant added to every key changes no softmax over them, where nothing turns or normalises the keys.
    """
    held = torch.zeros(len(layer.weight), dtype=torch.bool)
    for _, bias, start, rows in parts:
        held[start : start + rows] |= bias is not None
    if held.any() and not turns_keys and _leaves_keys(layer):
        held[len(held) // 3 : 2 * len(held) // 3] = True
    for delta in deltas:
        own = bias_of(layer)
        bias = new_bias(delta.update(layer.weight, own), own)
        change = None if bias is None else bias if own is None else bias - own
        if change is not None and change[~held.to(change.device)].any():
            raise UserError(
                f'{name or type(layer).__name__} has no bias, or not everywhere, to hold what {type(delta).__name__} '
                'adds; it cannot be merged there.'
            )


def _leaves_keys(layer: nn.Module | Projection) -> bool:
    """Tell whether a layer is an attention's projection, whose keys no norm changes."""
    if not isinstance(layer, Projection):
        return 'adds_later' in layer.__dict__
    norm = layer.inner.key_norm
    return not norm or isinstance(inside(layer.attention, norm), (type(None), nn.Identity))


@torch.no_grad()
def _merge(layer: nn.Module | Projection, deltas: Sequence[Delta], parts: Parts) -> None:
    """Change the weights of a layer as the deltas say, each of which sees the layer's own."""
    for to_weight, to_bias in [change_of_weights(layer, delta.eval()) for delta in deltas]:
        for weight, bias, start, rows in parts:
            if weight is not None:
                weight.add_(to_weight[start : start + rows])
            if bias is not None and to_bias is not None:
                bias.add_(to_bias[start : start + rows])


def check_mergeable(model: nn.Module) -> None:
    """Raise :class:`UserError` where a delta of a PETL model, on any device, does not update weights."""
    check_hosts(model.backbone, 'backbone')


def check_hosts(backbone: nn.Module, path: str) -> None:
    """Raise :class:`UserError` where a delta in ``backbone``, which is at ``path``, does not update weights."""
    for name, host in _hosts(backbone).items():
        where = f'{path}.{name}' if path else name
        for delta in deltas_of(host):
            if not _is_mergeable(delta):
                raise UserError(
                    f'{type(delta).__name__} on {where} does not update weights and cannot be merged '
                    'into them; those that have an update can, such as LoRA.'
                )


def is_mergeable(model: nn.Module) -> bool:
    """Tell whether :func:`merge` would take every delta of a PETL model."""
    return all(map(_is_mergeable, model.plan.deltas()))


def _is_mergeable(delta: Delta) -> bool:
    kind = type(delta)
    outside = kind.before is not Delta.before or kind.after is not Delta.after
    return delta.is_update and not outside


def _hosts(backbone: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have deltas, by name."""
    return {n: m for n, m in backbone.named_modules() if deltas_of(m)}
