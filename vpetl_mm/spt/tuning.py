"""Applies an allocation to a model: low-rank updates or adapters, whole vectors and single entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..petl import Delta, LinearAdapter, LoRA, Site, Sparse, host_of, layout_of
from ..petl.checks import number, one_of
from ..petl.host import attach
from ..petl.placing import put
from .allocation import NONE, SPARSE, STRUCTURAL, WHOLE, Allocation, read_allocation, tensors_sha256
from .budget import parse_budget
from .choice import STRUCTURED, Settings
from .sensitivity import CONTROLS, GRADIENTS, HEADS
from .units import Unit, class_token_of, units_of

KEYS = ('file', 'allocation', 'structured', 'rank', 'dropout', 'budget', 'control', 'head', 'gradients')
MEASURED = dict(head='start', gradients='batch')  # as published; older files do not say it
# the deltas' names on their hosts, in this order: an adapter reads what the single entries have corrected
SLOTS = 'qkv'
ENTRIES, WHOLES, UPDATES, TOKEN = 'sparse', 'vectors', 'spt', 'class_token'
AGAIN = 'run tools/sensitivity.py again'


def check_spt(spt: Any) -> dict[str, Any]:
    """Return ``petl.spt`` with its defaults.

    Args:
        spt: ``file`` of tools/sensitivity.py, ``structured`` (``'LoRA'`` or ``'AdaptMLP'``), ``rank`` (8),
            ``dropout`` on the structured updates' input (0.1), ``budget`` of the file: one, or a list to choose from
            on held-out data (None: any), ``control``, ``'random'`` or ``'shuffled'`` for a control experiment
            (None: sensitivity itself), ``head``, ``'start'`` or ``'probe'``, and ``gradients``, ``'batch'`` or
            ``'sample'``, of the measurement.

    Raises:
        UserError: naming the wrong option.
    """
    if not isinstance(spt, Mapping):
        raise UserError(f'petl.spt must be dict(file=..., structured="LoRA", ...), got {spt!r}.')
    for key in spt:
        if key not in KEYS:
            raise unknown('petl.spt key', key, KEYS)
    if spt.get('structured') not in STRUCTURED:
        raise unknown('petl.spt.structured', spt.get('structured'), STRUCTURED)
    if spt.get('allocation') is not None and not isinstance(spt['allocation'], Allocation):
        raise UserError('petl.spt.allocation is what a bundle holds; a config names petl.spt.file.')
    if spt.get('allocation') is None and (not isinstance(spt.get('file'), str) or not spt['file']):
        raise UserError(f'petl.spt needs file, written by tools/sensitivity.py; got {spt.get("file")!r}.')
    checked = dict(dict(rank=8, dropout=0.1, budget=None, control=None, **MEASURED), **spt)
    Settings(checked['structured'], checked['rank'])
    number('petl.spt.dropout', checked['dropout'], 0, 1)
    one_of('petl.spt.control', checked['control'], (None, *CONTROLS))
    one_of('petl.spt.head', checked['head'], HEADS)
    one_of('petl.spt.gradients', checked['gradients'], GRADIENTS)
    budgets_of(checked)
    return checked


def budgets_of(spt: Mapping[str, Any]) -> list[int]:
    """Return the budgets in ``petl.spt.budget``; none if any is allowed."""
    budget = spt.get('budget')
    if budget is None:
        return []
    budgets = budget if isinstance(budget, (list, tuple)) else [budget]
    if not budgets:
        raise UserError('petl.spt.budget is an empty list: name at least one budget, or None for any.')
    return [parse_budget(b) for b in budgets]


@dataclass(frozen=True)
class SPT:
    """A config's ``petl.spt`` and the allocation in its file.

    Args:
        options: of :func:`check_spt`.
        allocation: from the file.
    """

    options: dict[str, Any]
    allocation: Allocation

    @classmethod
    def of(cls, spt: Any) -> SPT:
        """Read the file that ``petl.spt`` names.

        Raises:
            UserError: for wrong options, and for a file that cannot be read or was made with other options.
        """
        options = check_spt(spt)
        allocation = options.get('allocation') or read_allocation(options['file'])
        options.setdefault('file', 'the bundle')
        wanted = {name: [options[name]] for name in ('structured', 'rank', 'control')}
        wanted['budget'] = budgets_of(options) or [allocation.budget]
        made = {name: getattr(allocation, name) for name in wanted} | measured_as(allocation)
        for name, values in (wanted | {name: [options[name]] for name in MEASURED}).items():
            if (theirs := made[name]) not in values:
                raise UserError(
                    f'{options["file"]} was made with {name}={theirs!r}, but petl.spt.{name} is '
                    f'{" or ".join(map(repr, values))}; {AGAIN}.'
                )
        return cls(options, allocation)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the trained weights depend on."""
        options = {name: self.options[name] for name in ('structured', 'rank')}
        return dict(type='SPT', **options, choice=self.allocation.digest)

    def check_base(self, state: Mapping[str, Tensor] | None) -> None:
        """Check that the pre-trained weights are those that sensitivity was measured on.

        Args:
            state: their tensors, as the backbone loads them; None for a random backbone.

        Raises:
            UserError: naming the file and the weights it was measured on.
        """
        if self.options.get('allocation') is not None:  # a bundle has a hash of what stays frozen
            return
        base = self.allocation.base
        if (base and base['sha256']) != (None if state is None else tensors_sha256(state)):
            measured = f'the weights of {base["file"]}' if base else 'a random backbone'
            raise UserError(
                f'{self.options["file"]} was measured on {measured}, but model.base loads others; {AGAIN}.'
            )

    def tuned(self, backbone: nn.Module) -> set[str]:
        """Return the parameters of a plain backbone that are tuned, whole or in part.

        Raises:
            UserError: when the allocation is for another backbone.
        """
        chosen = {row.name for row in self.allocation.rows if row.choice != NONE}
        units = [unit.param for unit in self._units(backbone) if unit.name in chosen]
        return {*units, *([class_token_of(backbone)[0]] if self.allocation.class_token else [])}

    def attach(self, backbone: nn.Module) -> dict[str, str]:
        """Put the deltas on a plain backbone.

        Returns:
            Each trained parameter below the backbone -> the part it belongs to.

        Raises:
            UserError: when the allocation is for another backbone.
        """
        units = self._units(backbone)
        chosen = {row.name: row.choice for row in self.allocation.rows}
        owners = {class_token_of(backbone)[0]: TOKEN} if self.allocation.class_token else {}
        hosts = defaultdict(list)
        for unit in units:
            hosts[unit.host].append(unit)
        for members in hosts.values():
            # a slot of a fused bias is only some entries of its parameter
            entries = [u for u in members if chosen[u.name] == SPARSE or (chosen[u.name] == WHOLE and u.slot)]
            owners |= {u.param: WHOLES for u in members if chosen[u.name] == WHOLE and not u.slot}
            if entries:
                owners |= _put(backbone, members[0], ENTRIES, self._sparse(entries))
            if updated := [u for u in members if chosen[u.name] == STRUCTURAL]:
                owners |= _put(backbone, members[0], UPDATES, self._update(backbone, updated))
        return owners

    def _units(self, backbone: nn.Module) -> list[Unit]:
        """Return the units of ``backbone``, which must be those of the file."""
        file, host = self.options['file'], host_of(backbone)
        if host != self.allocation.host:
            raise UserError(f'{file} was made for {self.allocation.host}, but the backbone is {host}.')
        units = units_of(backbone)
        rest = self.allocation.params - sum(row.params for row in self.allocation.rows)
        token = class_token_of(backbone)
        if rest and (token is None or token[1].numel() != rest):
            raise UserError(f'{file} was made for another backbone: its class token has {rest} parameters.')
        theirs = {row.name: tuple(row.shape) for row in self.allocation.rows}
        ours = {unit.name: unit.shape for unit in units}
        if theirs != ours:
            name = next(n for n in {**ours, **theirs} if theirs.get(n) != ours.get(n))
            there, here = theirs.get(name, 'missing'), ours.get(name, 'missing')
            raise UserError(f'{file} was made for another backbone: {name} is {there} there and {here} here.')
        return units

    def _sparse(self, entries: list[Unit]) -> Sparse:
        weights, biases = [], []
        for unit in entries:
            index = self.allocation.sparse.get(unit.name)
            index = torch.arange(unit.numel, dtype=torch.int32, device='cpu') if index is None else index
            if unit.is_matrix:
                weights.append(index + unit.offset * unit.shape[1])
            elif unit.kind == 'norm' and unit.param.endswith('weight'):
                weights.append(index)
            else:
                biases.append(index + unit.offset)
        return Sparse(_joined(weights), _joined(biases))

    def _update(self, backbone: nn.Module, updated: list[Unit]) -> Delta:
        """Build the low-rank update, or the adapter, of one linear layer."""
        unit = updated[0]
        site = _site(backbone, unit)
        # three layers may be in another order than their slots
        options = dict(slots=''.join(sorted((u.kind for u in updated), key=SLOTS.index))) if site.slots else {}
        # as in the published code: no dropout at the output projection, whose adapter is parallel
        dropout = 0.0 if unit.place == 'proj' else self.options['dropout']
        if self.options['structured'] == 'LoRA':
            return LoRA.at_site(site, rank=self.options['rank'], dropout=dropout, **options)
        mode = 'parallel' if unit.place == 'proj' else 'sequential'
        return LinearAdapter.at_site(site, d_bottle=self.options['rank'], mode=mode, dropout=dropout, **options)


def measured_as(allocation: Allocation) -> dict[str, Any]:
    """Return ``head`` and ``gradients`` of the measurement behind an allocation."""
    return {name: allocation.made.get(name, usual) for name, usual in MEASURED.items()}


def _joined(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None


def _site(backbone: nn.Module, unit: Unit) -> Site:
    """Return the site of a linear layer's unit."""
    return next(s for s in layout_of(backbone).sites(backbone, unit.place) if s.name == unit.host)


def _put(backbone: nn.Module, unit: Unit, name: str, delta: Delta) -> dict[str, str]:
    """Put a delta on the host of ``unit``, a linear layer or a norm; return its parameters and their label."""
    if unit.place:
        put(layout_of(backbone), backbone, _site(backbone, unit), name, delta)
    else:
        attach(backbone.get_submodule(unit.host), name, delta)
    return {f'{unit.host}.deltas.{name}.{n}': name for n, _ in delta.named_parameters()}
