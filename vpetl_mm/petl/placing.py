"""Puts a delta at its site, in the way that its place and its host ask for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import UserError, unknown
from .block import block_class, first_class, kept_class, last_class, noting_class, sizing_class
from .delta import Delta, Site
from .deltas import Deltas
from .exchange import exchange, plain_class, restore
from .grid import Grid
from .host import attach, attach_branch, hosted_class, own_class, strip
from .inner import Inner
from .layouts import Layout
from .opened import opened_class


def places_of(cls: type[Delta], at: str | Sequence[str] | None, options: Mapping[str, Any]) -> list[str]:
    """Return the places of a delta.

    Args:
        cls: its class.
        at: a place, or several; None for the default.
        options: of the config, which may decide the default.

    Raises:
        UserError: for a place that the class does not have, or one that is named twice.
    """
    at = cls.place_of(options) if at is None else at
    places = [at] if isinstance(at, str) else [*at] if isinstance(at, (list, tuple)) else [at]
    for place in places:
        if place not in cls.places:
            raise unknown(f'position at= of {cls.__name__}', place, cls.places)
    if not places:
        raise UserError(f'at= of {cls.__name__} is empty; leave it out, or name positions.')
    if twice := [place for place in cls.places if places.count(place) > 1]:
        raise UserError(f'at= of {cls.__name__} names a position twice: {", ".join(twice)}.')
    return places


def sites_for(
    layout: Layout, backbone: nn.Module, name: str, cls: type[Delta], place: str, around: Sequence[nn.Module] = ()
) -> list[Site]:
    """Return the hosts of a delta at a place, in all blocks that have it.

    Raises:
        UserError: where there are none, or the inside of one is not as the place table says.
    """
    host, what = type(backbone).__name__, f'petl.deltas.{name}: {cls.__name__}'
    if (other := layout.misfit(backbone, place)) is not None:
        raise UserError(
            f'{what} does not fit {type(other).__name__} in {host} at {place!r}: the place table has no such inside '
            '(one layer for q, k and v, or three of one width).'
        )
    if sites := list(layout.sites(backbone, place, around)):
        return sites
    there = [p for p in layout.places if next(layout.sites(backbone, p), None)]
    raise UserError(f'{what} sits at {place!r} here, which {host} does not have; it has: {", ".join(there)}.')


def put(layout: Layout, backbone: nn.Module, site: Site, name: str, delta: Delta) -> None:
    """Put ``delta`` on the host of ``site``, and exchange what has to ask it.

    Args:
        layout: of the backbone.
        backbone: holds the site.
        site: one of the layout's.
        name: of the delta.
        delta: built for the site.
    """
    attach(site.host, name, delta, site.place, _how(layout, backbone, site, delta))
    if site.place == 'qkv' and layout.slot_biases and getattr(site.host, 'bias', None) is None:
        site.host.adds_later = backbone.get_submodule(site.name.rpartition('.')[0]), layout.slot_biases
    if delta.reads == 'stream' and layout.branch:
        attach_branch(site.block, layout.branch, 'mlp')
    elif delta.reads == 'stream' and not _adds_identity(site.host):
        exchange(site.block, *_block(layout, site))
    elif delta.needs_grid and layout.windows:  # it notes the grid
        with own_class(site.block):
            exchange(site.block, *_block(layout, site))
        site.block.token_grids = (*site.block.__dict__.get('token_grids', ()), site.grid)
    if hasattr(site.block, 'norm_name'):  # it reads what its second norm notes
        _note(site.block, layout, delta)
    if delta.needs_grid and not layout.windows:
        _size(layout, backbone, site.grid)


def _size(layout: Layout, backbone: nn.Module, grid: Grid | None) -> None:
    """Let the convolution that embeds patches say how many rows and columns there are."""
    for site in layout.sites(backbone, 'patch_embed') if grid is not None else ():
        host = site.host
        if isinstance(host, (nn.Conv2d, nn.Conv3d)) and not any(g is grid for g in getattr(host, 'grids', ())):
            exchange(host, sizing_class)
            host.grids = (*getattr(host, 'grids', ()), grid)


def _note(block: nn.Module, layout: Layout, delta: Delta) -> None:
    """Let the norms of a block note what its deltas read."""
    first, second = (getattr(block, name, None) for name in layout.norm12)
    exchange(second, noting_class)
    second.block, second.noted, second.awaited = (block,), None, False
    second.first_norm = getattr(second, 'first_norm', (None,))
    if delta.reads == 'norm':
        exchange(first, kept_class)
        first.noted, second.first_norm = None, (first,)


def take_off(layout: Layout, backbone: nn.Module) -> None:
    """Take all deltas off a backbone, with whatever :func:`put` has exchanged."""
    for module in backbone.modules():
        if isinstance(module._modules.get('deltas'), Deltas):
            strip(module)
    restore(backbone)
    for site in layout.sites(backbone, 'attn') if layout.leaf else ():
        if type(site.host) is layout.leaf:
            site.host.__class__ = layout.leaf.__base__


def _how(layout: Layout, backbone: nn.Module, site: Site, delta: Delta) -> tuple | None:
    """Return how the host asks its deltas; see :class:`~.host.Deltas`."""
    if site.place in ('block', 'between') and adds_residual(layout, site):
        return _block(layout, site)
    if site.place == 'mlp' and isinstance(layout.mlp, tuple):
        last = getattr(site.block, layout.mlp[1])
        exchange(last, last_class)
        last.first, site.host.noted = (site.host,), None
        return (first_class,)
    if site.inner is None:
        return (hosted_class,)
    if isinstance(site.host, nn.Linear):  # a fused projection
        if delta.joins_attention or 'qkv' in layout.passed_by:
            _open(backbone.get_submodule(site.name.rpartition('.')[0]), site.inner)
        return None if 'qkv' in layout.passed_by else (hosted_class,)
    _open(site.host, site.inner)
    return opened_class, site.inner


def _open(attention: nn.Module, inner: Inner) -> None:
    exchange(attention, opened_class, inner)
    if getattr(attention, 'fused_attn', True) is False:  # timm's switch between torch's attention and plain products
        attention.fused_attn, attention.was_fused = True, False


def _block(layout: Layout, site: Site) -> tuple:
    """Return the class of a block, which serves its MLP's deltas that read the stream where nothing else does."""
    mlp = layout.mlp if isinstance(layout.mlp, str) else layout.mlp[0]
    served = layout.branch or _adds_identity(getattr(site.block, mlp))
    return block_class, layout.norm12[1], '' if served else mlp, layout.sized


def _adds_identity(mlp: nn.Module) -> bool:
    """Tell whether an MLP adds the stream itself, such as mmcv's FFN."""
    return 'identity' in inspect.signature(plain_class(mlp).forward).parameters


def reads_stream(layout: Layout, site: Site) -> bool:
    """Tell whether a delta on an MLP can read the residual stream in front of the norm."""
    return bool(layout.branch) or _adds_identity(site.host) or adds_residual(layout, site)


def adds_residual(layout: Layout, site: Site) -> bool:
    """Tell whether a block returns the stream in front of its second norm plus the MLP's branch."""
    return any(c.__name__ in layout.adds_residual for c in type(site.block).__mro__)
