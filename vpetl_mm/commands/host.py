"""Describes what the place table finds in a model, or proposes an entry for one that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ..errors import UserError
from ..petl import Inner, Plan, adapt, find
from ..petl.inner import Projection
from ..petl.layouts import Found, key_of, register_layout
from ..petl.placing import take_off
from ..petl.proposal import Proposal, propose
from ..petl.proposal.methods import tried
from .host_models import NamedModel

PLACES = {'proj': 'proj', 'mlp': 'MLP', 'fc1': 'fc1', 'fc2': 'fc2'}


def described(named: NamedModel, tries: bool = False) -> str:
    """Return what the place table finds in a model, or a proposed entry and what it finds.

    Args:
        named: of :func:`~.host_models.named_model`.
        tries: also run the model once for each method, without values. Defaults to False; a proposed entry is always
            tried where it is known what the model takes.

    Raises:
        UserError: for a model without a block that an entry could describe, with what is missing.
    """
    model, run, lines = named.model, named.run if tries else None, []
    if find(model) is None:
        proposal = propose(model, named.run)
        if not isinstance(proposal, Proposal):
            what = '; '.join(proposal)
            raise UserError(f'{key_of(type(model))} is not in the place table, and no entry can be proposed: {what}.')
        register_layout(proposal.key, proposal.layout)
        lines, run = [*_proposed(model, proposal), ''], named.run
    where = find(model)
    plan = adapt(model, train=[])
    lines += [*_parts(named, where), '', *_groups(plan), '']
    take_off(where.layout, model)
    return '\n'.join([*lines, *_methods(model, run)])


def _proposed(model: nn.Module, proposal: Proposal) -> Iterator[str]:
    yield f'{key_of(type(model))} is not in the place table. A proposed entry, to paste in front of adapt:'
    yield ''
    yield proposal.code
    yield from (f'  - {note}' for note in proposal.notes)
    yield ''
    yield 'With it:'


def _parts(named: NamedModel, where: Found) -> Iterator[str]:
    """Yield what a model has, a line each, with the first block's names."""
    model, layout = named.model, where.layout
    blocks = [n for n, _ in model.named_modules() if layout.matches(layout.block, n)]
    of = f' at {where.path}' if where.path else ''
    total = sum(p.numel() for p in model.parameters())
    yield f'{"model":9} {type(model).__name__} ({named.source}), {total:,} parameters'
    yield f'{"layout":9} {where.key}{of}'
    kind = type(model.get_submodule(blocks[0])).__name__ if blocks else ''
    yield f'{"blocks":9} {len(blocks)}: {blocks[0]} to {blocks[-1]} ({kind}), width {layout.width(model)}'
    attention = next(layout.sites(model, 'attn'), None)
    if attention is None:
        raise UserError(
            f'{type(model).__name__} has blocks of {kind}, whose attention the place table does not know.'
        )
    yield f'{"attention":9} {attention.name} ({type(attention.host).__name__}){_joins(attention.inner)}'
    qkv = next(layout.sites(model, 'qkv'), None)
    if qkv is not None:
        yield f'{"q, k, v":9} {_projection(qkv.name, attention.host, qkv.inner)}'
    for place, word in PLACES.items():
        if sites := list(layout.sites(model, place)):
            more = f', and {len(sites) // len(blocks) - 1} beside it' if len(sites) > len(blocks) else ''
            yield f'{word:9} {sites[0].name} ({type(sites[0].host).__name__}), {_widths(sites[0])}{more}'
    norms = {type(m).__name__: None for m in layout.norms(model)}
    yield f'{"norms":9} {" and ".join(layout.norm12)} of each block ({", ".join(norms)})'


def _widths(site: Any) -> str:
    return f'{site.in_dim} to {site.out_dim}'


def _joins(inner: Inner | None) -> str:
    if inner is None or inner.joins:
        return ''
    return ', which multiplies its keys itself: no further ones can join'


def _projection(name: str, attention: nn.Module, inner: Inner | None) -> str:
    if inner is None:
        return f'{name}, one layer'
    projection = Projection(attention, inner)
    weights = ', '.join(inner.weights)
    form = 'one layer' if len(inner.weights) == 1 else 'three layers, seen as one'
    biases = [b for b in projection.bias_names if b]
    parts = [f'{weights}: {form}, {projection.in_features} to {projection.out_features}']
    parts += [f'biases {", ".join(biases)}' if biases else 'no bias']
    parts += [f"keys' norm {inner.key_norm}"] if inner.key_norm and hasattr(attention, inner.key_norm) else []
    return '; '.join(parts)


def _groups(plan: Plan) -> Iterator[str]:
    """Yield the train names with their numbers of parameters."""
    sizes = {n: p.numel() for n, p in plan.model.named_parameters()}
    yield f'{"train name":14} {"parameters":>14}'
    for name, members in plan.groups().items():
        if members:
            yield f'{name:14} {sum(sizes[m] for m in members):>14,}'


def _methods(model: nn.Module, run: Callable[[nn.Module], Any] | None) -> Iterator[str]:
    """Yield the methods with their numbers of parameters, or why they do not fit."""
    if run is not None:
        try:
            run(model)
        except Exception as error:  # whatever a model raises
            run, why = None, f'{type(error).__name__}'
            yield f'The model was not tried: it does not run without values ({why}).\n'
    yield f'{"method":30} {"parameters":>14}{"" if run is None else "   tried: a gradient reaches all of them"}'
    for name, count, why in tried(model, run):
        yield f'{name:30} {count:>14,}' if not why else f'{name:30} {"-":>14}   {why}'
