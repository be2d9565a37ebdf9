"""The units that SPT tunes: weight matrices (q, k and v of a fused projection are three) and vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..errors import UserError
from ..petl import Layout, Site, layout_of
from ..petl.deltas import of_delta

MATRICES = ('q', 'k', 'v', 'proj', 'fc1', 'fc2')
VECTORS = ('norm', 'bias')


@dataclass(frozen=True)
class Unit:
    """A matrix, or a vector, that is tuned as a whole, in single entries, or not at all.

    Args:
        param: the parameter below the backbone that holds it.
        start: the first of its rows in that parameter; not 0 for k and v of a fused projection.
        shape: (d_out, d_in), or (d,) of a vector.
        kind: one of ``MATRICES`` and ``VECTORS``.
        host: the path of the module whose forward uses it.
        slot: ``'q'``, ``'k'`` or ``'v'`` of a fused parameter, else ``''``.
        offset: of a bias, its first position in the host's output.
        place: of the host in the place table; ``''`` for a norm.
        block: its block, counted from 0; None outside the blocks.
    """

    param: str
    shape: tuple[int, ...]
    kind: str
    host: str
    place: str = ''
    start: int = 0
    slot: str = ''
    offset: int = 0
    block: int | None = None

    @property
    def name(self) -> str:
        """The parameter and the slot, such as ``layers.0.attn.qkv.weight[q]``."""
        return f'{self.param}[{self.slot}]' if self.slot else self.param

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """True for a matrix, False for a vector."""
        return len(self.shape) == 2


def units_of(backbone: nn.Module) -> list[Unit]:
    """List the units of a backbone in the order of its parameters.

    The matrices are q, k, v, proj, fc1 and fc2 of each block, the vectors their biases and all norms. Left out are
    class token, patch and position embeddings, position-bias tables, LayerScale and a Swin's downsampling.

    Args:
        backbone: of a class in the place table, on any device, with or without deltas.

    Raises:
        UserError: where q, k and v of an attention are no equal slots.
    """
    layout = layout_of(backbone)
    if (other := layout.misfit(backbone, 'qkv')) is not None:
        raise UserError(
            f'SPT does not fit {type(other).__name__}: the place table has no such inside (one layer for q, k and v, '
            'or three of one width).'
        )
    names = [name for name, _ in backbone.named_modules() if layout.matches(layout.block, name)]
    blocks = {name: i for i, name in enumerate(names)}
    found: dict[str, list[Unit]] = {}
    for place in ('qkv', 'proj', 'fc1', 'fc2'):
        for site in layout.sites(backbone, place):
            for unit in _linear(backbone, layout, site, blocks[layout.block_of(site.name)]):
                found.setdefault(unit.param, []).append(unit)
    parameters = dict(backbone.named_parameters())
    embedding = {*layout.members('patch_embed', parameters)}
    for name in layout.members('norm', parameters):
        if name not in embedding and not of_delta(name):
            block = next((i for b, i in blocks.items() if name.startswith(f'{b}.')), None)
            found[name] = [Unit(name, tuple(parameters[name].shape), 'norm', name.rpartition('.')[0], block=block)]
    return [unit for name in parameters for unit in found.get(name, ())]


def class_token_of(backbone: nn.Module) -> tuple[str, nn.Parameter] | None:
    """Return the name and the values of a backbone's class token; None where it has none."""
    return next(((n, p) for n, p in backbone.named_parameters() if n.rpartition('.')[2] == 'cls_token'), None)


def _linear(backbone: nn.Module, layout: Layout, site: Site, block: int) -> Iterator[Unit]:
    """Yield the matrices and biases of one linear layer, or of the three of q, k and v."""
    slots, width = site.slots or '', site.width
    at = dict(host=site.name, place=site.place, block=block)
    for weight, bias, start, rows in layout.parameters(backbone, site.name):
        for i in range(rows // width):
            row = start + i * width
            slot = slots[row // width] if slots else ''
            fused = slot if rows > width else ''  # a part of its parameter
            if weight:
                kind = slot or site.place
                yield Unit(weight, (width, site.in_dim), kind, start=row - start, slot=fused, offset=row, **at)
            if bias:
                yield Unit(bias, (width,), 'bias', start=row - start, slot=fused, offset=row, **at)
