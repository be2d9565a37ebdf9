"""The units of each host, against names written down by hand."""

from __future__ import annotations

import pytest
import torch
from tiny import HOSTS, config

from vpetl_mm import build_model
from vpetl_mm.spt.units import Unit, units_of

C, HIDDEN, DEPTH = 16, 64, 2


NORMS = dict(vit=('ln1', 'ln2'), vit_layerscale=('ln1', 'ln2'))


def block_of(name: str, number: int) -> str:
    return HOSTS[name].block.format(number).removeprefix('backbone.')


def expected(name: str) -> dict[str, tuple]:
    """Name -> kind, shape and first row."""
    found, norms = {}, [HOSTS[name].final.removeprefix('backbone.')]
    rows = {'q': 0, 'k': C, 'v': 2 * C}
    for block in (block_of(name, i) for i in range(DEPTH)):
        at = {place: f'{block}.{below}' for place, below in HOSTS[name].below.items()}
        norms += [f'{block}.{n}' for n in NORMS.get(name, ('norm1', 'norm2'))]
        found |= {f'{at["qkv"]}.weight[{s}]': (s, (C, C), rows[s]) for s in 'qkv'}
        if name == 'videomae':  # k has no bias
            found |= {f'{at["attn"]}.{s}_bias': ('bias', (C,), 0) for s in 'qv'}
        else:
            found |= {f'{at["qkv"]}.bias[{s}]': ('bias', (C,), rows[s]) for s in 'qkv'}
        for place, d_out, d_in in (('proj', C, C), ('fc1', HIDDEN, C), ('fc2', C, HIDDEN)):
            found |= {f'{at[place]}.weight': (place, (d_out, d_in), 0), f'{at[place]}.bias': ('bias', (d_out,), 0)}
    return found | {f'{n}.{p}': ('norm', (C,), 0) for n in norms for p in ('weight', 'bias')}


def said(units: list[Unit]) -> dict[str, tuple]:
    return {u.name: (u.kind, u.shape, u.start) for u in units}


@pytest.mark.parametrize('host', HOSTS)
def test_the_units_of_each_host(host):
    backbone = build_model(HOSTS[host].config()).backbone
    units = units_of(backbone)
    assert said(units) == expected(host) and len(units) == len(expected(host))
    assert said(units_of(build_model(HOSTS[host].config(), meta=True).backbone)) == said(units)
    names = {n for n, _ in backbone.named_parameters()}
    skipped = names - {u.param for u in units}
    allowed = ('cls_token', 'pos_embed', 'patch_embed', 'relative_position_bias_table', 'gamma')
    assert skipped and all(any(word in name for word in allowed) for name in skipped), skipped


@pytest.mark.parametrize('host', HOSTS)
def test_units_tile_their_parameters_in_the_order_of_the_model(host):
    backbone = build_model(HOSTS[host].config()).backbone
    order = [n for n, _ in backbone.named_parameters()]
    units = units_of(backbone)
    tiled = {n: torch.zeros(p.shape) for n, p in backbone.named_parameters()}
    for unit in units:
        tiled[unit.param][unit.start : unit.start + unit.shape[0]] += 1
    assert all((tiled[u.param] == 1).all() for u in units), 'each entry once'
    at = [(order.index(u.param), u.start) for u in units]
    assert at == sorted(at)


@pytest.mark.parametrize('host', HOSTS)
def test_blocks_are_numbered(host):
    for unit in units_of(build_model(HOSTS[host].config()).backbone):
        inside = [i for i in range(DEPTH) if unit.param.startswith(f'{block_of(host, i)}.')]
        assert [unit.block] == (inside or [None]), unit


def test_blocks_are_numbered_through_the_stages():
    units = units_of(build_model(config(depths=(1, 2))).backbone)
    blocks = {u.param.partition('.attn')[0]: u.block for u in units if u.kind == 'proj'}
    assert blocks == {'layers.0.blocks.0': 0, 'layers.1.blocks.0': 1, 'layers.1.blocks.1': 2}
    assert not any(u.param.startswith('layers.0.downsample.reduction') for u in units)


def test_deltas_are_no_units():
    deltas = dict(lora=dict(type='LoRA', at='qkv'), adapter=dict(type='AdaptMLP', at='mlp'))
    host = HOSTS['vit']
    assert said(units_of(build_model(host.config(deltas)).backbone)) == expected('vit')


def test_without_biases():
    backbone = build_model(HOSTS['vit'].config(qkv_bias=False)).backbone
    assert not any('qkv.bias' in u.name for u in units_of(backbone))
    backbone = build_model(HOSTS['videomae'].config(qkv_bias=False)).backbone
    assert not any('q_bias' in u.name or 'v_bias' in u.name for u in units_of(backbone))
