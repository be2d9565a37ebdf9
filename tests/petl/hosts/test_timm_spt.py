"""SPT on the hosts of timm, torchvision and OpenCLIP: single entries, whole vectors and low-rank updates, merged."""

from __future__ import annotations

import copy

import pytest
import torch
from timm_hosts import HOSTS, plain
from torch import Tensor, nn

from vpetl_mm.petl import Plan, adapt, host_of
from vpetl_mm.spt.allocation import Allocation, UnitAllocation
from vpetl_mm.spt.plain import tuning_of
from vpetl_mm.spt.units import Unit, units_of

RANK = 2
SLOTS = dict(q=0, k=1, v=2)


def choice_of(i: int, unit: Unit) -> str:
    """Matrices in turn by low-rank updates, entries or not; vectors as a whole or by entries."""
    if unit.is_matrix:
        return ('structured', 'sparse', 'sparse', 'none')[i % 4]
    return ('whole', 'sparse')[i % 2]


def allocation(model: nn.Module) -> Allocation:
    rows, sparse = [], {}
    generator = torch.Generator().manual_seed(0)
    for i, unit in enumerate(units_of(model)):
        choice, sizes = choice_of(i, unit), dict(none=0, whole=unit.numel, sparse=3)
        if choice == 'sparse':
            sparse[unit.name] = torch.randperm(unit.numel, generator=generator)[:3].sort().values.to(torch.int32)
        params = sizes[choice] if choice in sizes else RANK * sum(unit.shape)
        rows.append(UnitAllocation(unit.name, unit.kind, unit.block, [*unit.shape], choice, params, 1.0))
    return Allocation(
        host=host_of(model),
        structured='LoRA',
        rank=RANK,
        budget=10**6,
        params=sum(row.params for row in rows),
        class_token=False,
        rows=tuple(rows),
        base=None,
        control=None,
        made={},
        sparse=sparse,
    )


def tuned(name: str) -> tuple[nn.Module, Plan, Allocation]:
    """The model with everything that SPT trains drawn at random."""
    model, generator = plain(name), torch.Generator().manual_seed(3)
    chosen = allocation(model)
    plan = adapt(model, train=[], spt=tuning_of(chosen, dropout=0.0))
    with torch.no_grad():
        for parameter in plan.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model, plan, chosen


def part_of(parameter: Tensor, slot: str, rows: int) -> Tensor:
    """The rows of a slot, (rows, ...), in a fused parameter; all rows of another."""
    return parameter[SLOTS[slot] * rows :][:rows] if slot else parameter


def by_hand(name: str, model: nn.Module, chosen: Allocation) -> nn.Module:
    """The plain model with changed weights, from the values that ``model`` holds."""
    expected, state = plain(name), model.state_dict()
    own = dict(expected.named_parameters())
    for unit, row in zip(units_of(expected), chosen.rows, strict=True):
        param, _, rest = unit.name.partition('[')
        kind = unit.kind if unit.kind in SLOTS else ''
        part = part_of(own[param], rest.rstrip(']'), unit.shape[0])
        deltas = f'{unit.host}.deltas'
        if row.choice == 'whole' and not rest:
            part.copy_(state[param])
        elif row.choice == 'structured':
            a, b = (state[f'{deltas}.spt.{m}.{kind or "out"}.weight'] for m in 'AB')
            part.add_(b @ a)
        elif row.choice in ('sparse', 'whole'):
            what = 'weight' if unit.is_matrix or param.endswith('norm.weight') or unit.kind == 'norm' else 'bias'
            what = 'bias' if param.endswith('bias') else what
            index, value = state[f'{deltas}.sparse.{what}_index'], state[f'{deltas}.sparse.{what}_value']
            step = unit.numel // unit.shape[0]
            start = unit.offset * step
            mine = (index >= start) & (index < start + unit.numel)
            local = index[mine].long() - start
            if row.choice == 'sparse':
                assert torch.equal(local, chosen.sparse[unit.name].long())
            part.view(-1).index_add_(0, local, value[mine])
    return expected


@pytest.mark.parametrize('name', HOSTS)
@torch.no_grad()
def test_tunes_and_merges_what_is_allocated(name):
    model, plan, chosen = tuned(name)
    host, own = HOSTS[name], plain(name)
    assert plan.count()['trainable'] == chosen.params
    matrices = {u.kind for u in units_of(own) if u.is_matrix}
    assert matrices == {'q', 'k', 'v', 'proj', 'fc1', 'fc2'}
    y = host.out(model)
    assert (y - host.out(own)).abs().max() > 1e-2
    torch.testing.assert_close(y, host.out(by_hand(name, model, chosen)), atol=1e-5, rtol=1e-5)

    merged = copy.deepcopy((model, plan))
    merged[1].merge()
    assert merged[0].state_dict().keys() == own.state_dict().keys()
    assert [type(m) for m in merged[0].modules()] == [type(m) for m in own.modules()]
    torch.testing.assert_close(host.out(merged[0]), y, atol=1e-5, rtol=1e-5)
