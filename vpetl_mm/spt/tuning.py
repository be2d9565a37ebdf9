"""From an allocation to a model: low-rank updates, whole vectors and single entries, each where it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..petl import Delta, LinearAdapter, LoRA, Sparse, host_of, layout_of
from ..petl.delta import number, one_of
from ..petl.host import attach
from .allocation import NONE, SPARSE, STRUCTURAL, WHOLE, Allocation, read_allocation, tensors_sha256
from .budget import parse_budget
from .choice import STRUCTURED, Settings
from .sensitivity import CONTROLS
from .units import Unit, units_of

KEYS = ('file', 'structured', 'rank', 'dropout', 'budget', 'control')
# the deltas' names on their hosts; the adapter reads what the single entries have corrected
ENTRIES, WHOLES, UPDATES, TOKEN = 'sparse', 'vectors', 'spt', 'class_token'


def check_spt(spt: Any) -> dict[str, Any]:
    """``petl.spt`` with its defaults, or a :class:`UserError` that says what is wrong.

    Args:
        spt: ``file`` of tools/sensitivity.py, ``structured`` (``'LoRA'`` or ``'AdaptMLP'``), ``rank`` (8),
            ``dropout`` on the structured updates' input (0.1), ``budget``, what the file is made for: one, or a list
            to choose from on held-out data (None: any), and ``control``, ``'random'`` or ``'shuffled'`` for what
            sensitivity is to be compared with (None: sensitivity itself).
    """
    if not isinstance(spt, Mapping):
        raise UserError(f'petl.spt must be a dict(file=..., structured="LoRA"), got {spt!r}.')
    for key in spt:
        if key not in KEYS:
            raise unknown('petl.spt key', key, KEYS)
    if spt.get('structured') not in STRUCTURED:
        raise unknown('petl.spt.structured', spt.get('structured'), STRUCTURED)
    if not isinstance(spt.get('file'), str) or not spt['file']:
        raise UserError(f'petl.spt needs file, which tools/sensitivity.py writes; got {spt.get("file")!r}.')
    checked = dict(dict(rank=8, dropout=0.1, budget=None, control=None), **spt)
    Settings(checked['structured'], checked['rank'])
    number('petl.spt.dropout', checked['dropout'], 0, 1)
    one_of('petl.spt.control', checked['control'], (None, *CONTROLS))
    budgets_of(checked)
    return checked


def budgets_of(spt: Mapping[str, Any]) -> list[int]:
    """The budgets that ``petl.spt.budget`` names; none where it leaves it open."""
    budget = spt.get('budget')
    if budget is None:
        return []
    if isinstance(budget, (list, tuple)) and not budget:
        raise UserError('petl.spt.budget is an empty list: name at least one budget, or None for any.')
    return [parse_budget(b) for b in (budget if isinstance(budget, (list, tuple)) else [budget])]


@dataclass(frozen=True)
class SPT:
    """The SPT part of a config's ``petl``, with the allocation that its file holds.

    Args:
        options: of :func:`check_spt`.
        allocation: from its file.
    """

    options: dict[str, Any]
    allocation: Allocation

    @classmethod
    def of(cls, spt: Any) -> SPT:
        """From ``petl.spt``.

        Raises:
            UserError: for wrong options, a file that cannot be read, or one made for others.
        """
        options = check_spt(spt)
        allocation = read_allocation(options['file'])
        theirs, ours = (allocation.structured, allocation.rank), (options['structured'], options['rank'])
        if theirs != ours:
            raise UserError(
                f'{options["file"]} was made for {theirs[0]} of rank {theirs[1]}, and petl.spt says {ours[0]} of '
                f'rank {ours[1]}; make it again with tools/sensitivity.py.'
            )
        budgets = budgets_of(options)
        if budgets and allocation.budget not in budgets:
            wanted = ', '.join(f'{b:,}' for b in budgets)
            raise UserError(
                f'{options["file"]} was made for a budget of {allocation.budget:,}, and petl.spt.budget says '
                f'{wanted}; make it again with tools/sensitivity.py.'
            )
        if allocation.control != options['control']:
            raise UserError(
                f'{options["file"]} was made with control={allocation.control!r}, and petl.spt says '
                f'{options["control"]!r}; make it again with tools/sensitivity.py.'
            )
        return cls(options, allocation)

    def settings(self) -> dict[str, Any]:
        """What the trained weights are worth nothing without."""
        return dict(
            type='SPT',
            structured=self.options['structured'],
            rank=self.options['rank'],
            choice=self.allocation.digest,
        )

    def check_base(self, state: Mapping[str, Tensor] | None) -> None:
        """Refuse pre-trained weights that are not those the sensitivity was measured on.

        Args:
            state: their tensors, as the backbone loads them; None for a random backbone.

        Raises:
            UserError: naming the file and what it was measured on.
        """
        base = self.allocation.base
        if (base and base['sha256']) != (None if state is None else tensors_sha256(state)):
            measured = f'the weights of {base["file"]}' if base else 'a random backbone'
            raise UserError(
                f'{self.options["file"]} was measured on {measured}, and model.base loads others; run '
                'tools/sensitivity.py again.'
            )

    def tuned(self, backbone: nn.Module) -> set[str]:
        """The parameters of a plain backbone that it tunes, whole or in part.

        Raises:
            UserError: when the allocation is for another backbone.
        """
        chosen = {row.name for row in self.allocation.rows if row.choice != NONE}
        token = {'cls_token'} if self.allocation.class_token else set()
        return token | {unit.param for unit in self._units(backbone) if unit.name in chosen}

    def attach(self, backbone: nn.Module) -> dict[str, str]:
        """Put the deltas on a plain backbone.

        Returns:
            The parameters below the backbone that train -> what they are part of.

        Raises:
            UserError: when the allocation is for another backbone.
        """
        units = self._units(backbone)
        chosen = {row.name: row.choice for row in self.allocation.rows}
        owners = {'cls_token': TOKEN} if self.allocation.class_token else {}
        for host, members in _by_host(units).items():
            # part of a fused bias is a few entries of a parameter
            entries = [u for u in members if chosen[u.name] == SPARSE or (chosen[u.name] == WHOLE and u.slot)]
            owners |= {u.param: WHOLES for u in members if chosen[u.name] == WHOLE and not u.slot}
            if entries:
                sparse = self._sparse(backbone.get_submodule(host), entries)
                owners |= _put(backbone, host, ENTRIES, sparse)
            if updated := [u for u in members if chosen[u.name] == STRUCTURAL]:
                owners |= _put(backbone, host, UPDATES, self._update(backbone, updated))
        return owners

    def _units(self, backbone: nn.Module) -> list[Unit]:
        """The units of ``backbone``, which must be those that the file was made from."""
        file, host = self.options['file'], host_of(backbone)
        if host != self.allocation.host:
            raise UserError(f'{file} was made for {self.allocation.host}, and the backbone is {host}.')
        units = units_of(backbone)
        rest = self.allocation.params - sum(row.params for row in self.allocation.rows)
        token = getattr(backbone, 'cls_token', None)
        if rest and (token is None or token.numel() != rest):
            raise UserError(f'{file} was made for another backbone: its class token has {rest} parameters.')
        theirs = {row.name: tuple(row.shape) for row in self.allocation.rows}
        for unit in units:
            if theirs.get(unit.name) != unit.shape:
                there = f'is {theirs[unit.name]}' if unit.name in theirs else 'is not'
                raise UserError(
                    f'{file} was made for another backbone: {unit.name} {there} there and is {unit.shape} here.'
                )
        if len(theirs) != len(units):
            extra = next(name for name in theirs if name not in {u.name for u in units})
            raise UserError(f'{file} was made for another backbone: it has {extra}, which this one has not.')
        return units

    def _sparse(self, host: nn.Module, entries: list[Unit]) -> Sparse:
        weights, biases = [], []
        for unit in entries:
            index = self.allocation.sparse.get(unit.name)
            index = torch.arange(unit.numel, dtype=torch.int32, device='cpu') if index is None else index
            if unit.is_matrix:
                weights.append(index + unit.start * unit.shape[1])
            elif unit.kind == 'norm' and unit.param.endswith('weight'):
                weights.append(index)
            else:
                biases.append(index + unit.offset)
        return Sparse(_joined(weights), _joined(biases))

    def _update(self, backbone: nn.Module, updated: list[Unit]) -> Delta:
        """The low-rank update, or the adapter, of one linear layer."""
        unit = updated[0]
        layout = layout_of(backbone)
        site = next(s for s in layout.sites(backbone, unit.place) if s.name == unit.host)
        options = dict(slots=''.join(u.slot for u in updated)) if site.slots else {}
        # the published code drops nothing in front of the output projection, and puts its adapter beside it
        dropout = 0.0 if unit.place == 'proj' else self.options['dropout']
        if self.options['structured'] == 'LoRA':
            return LoRA.at_site(site, rank=self.options['rank'], dropout=dropout, **options)
        mode = 'parallel' if unit.place == 'proj' else 'sequential'
        return LinearAdapter.at_site(site, d_bottle=self.options['rank'], mode=mode, dropout=dropout, **options)


def _joined(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None


def _by_host(units: list[Unit]) -> dict[str, list[Unit]]:
    hosts: dict[str, list[Unit]] = {}
    for unit in units:
        hosts.setdefault(unit.host, []).append(unit)
    return hosts


def _put(backbone: nn.Module, host: str, name: str, delta: Delta) -> dict[str, str]:
    attach(backbone.get_submodule(host), name, delta)
    return {f'{host}.deltas.{name}.{n}': name for n, _ in delta.named_parameters()}
