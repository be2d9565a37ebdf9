"""What is judged as one, on each host, against names written down by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import HOSTS, config

from vpetl_mm import build_model
from vpetl_mm.spt.units import Unit, units_of

C, HIDDEN, DEPTH = 16, 64, 2


def fused(path: str) -> dict[str, tuple]:
    """Name -> kind, shape and first row of q, k and v, weight and bias."""
    rows = {'q': 0, 'k': C, 'v': 2 * C}
    weights = {f'{path}.weight[{s}]': (s, (C, C), rows[s]) for s in 'qkv'}
    return weights | {f'{path}.bias[{s}]': ('bias', (C,), rows[s]) for s in 'qkv'}


def plain(path: str, kind: str, d_out: int, d_in: int) -> dict[str, tuple]:
    return {f'{path}.weight': (kind, (d_out, d_in), 0), f'{path}.bias': ('bias', (d_out,), 0)}


def norm(path: str) -> dict[str, tuple]:
    return {f'{path}.{p}': ('norm', (C,), 0) for p in ('weight', 'bias')}


def vit() -> dict[str, tuple]:
    expected: dict[str, Any] = {}
    for i in range(DEPTH):
        block = f'layers.{i}'
        expected |= norm(f'{block}.ln1') | fused(f'{block}.attn.qkv') | plain(f'{block}.attn.proj', 'proj', C, C)
        expected |= norm(f'{block}.ln2') | plain(f'{block}.ffn.layers.0.0', 'fc1', HIDDEN, C)
        expected |= plain(f'{block}.ffn.layers.1', 'fc2', C, HIDDEN)
    return expected | norm('ln1')


def videomae() -> dict[str, tuple]:
    expected: dict[str, Any] = {}
    for i in range(DEPTH):
        block = f'blocks.{i}'
        expected |= norm(f'{block}.norm1') | norm(f'{block}.norm2')
        expected |= {k: v for k, v in fused(f'{block}.attn.qkv').items() if 'weight' in k}
        expected |= {f'{block}.attn.{n}': ('bias', (C,), 0) for n in ('q_bias', 'v_bias')}  # k has none
        expected |= plain(f'{block}.attn.proj', 'proj', C, C) | plain(f'{block}.mlp.layers.0.0', 'fc1', HIDDEN, C)
        expected |= plain(f'{block}.mlp.layers.1', 'fc2', C, HIDDEN)
    return expected | norm('fc_norm')


def swin3d() -> dict[str, tuple]:
    expected: dict[str, Any] = {}
    for i in range(DEPTH):
        block = f'layers.0.blocks.{i}'
        expected |= norm(f'{block}.norm1') | fused(f'{block}.attn.qkv') | plain(f'{block}.attn.proj', 'proj', C, C)
        expected |= norm(f'{block}.norm2') | plain(f'{block}.mlp.fc1', 'fc1', HIDDEN, C)
        expected |= plain(f'{block}.mlp.fc2', 'fc2', C, HIDDEN)
    return expected | norm('norm0')


EXPECTED = {'vit': vit, 'vit_layerscale': vit, 'videomae': videomae, 'swin3d': swin3d}


def said(units: list[Unit]) -> dict[str, tuple]:
    return {u.name: (u.kind, u.shape, u.start) for u in units}


@pytest.mark.parametrize('host', EXPECTED)
def test_the_units_of_each_host(host):
    backbone = build_model(HOSTS[host].config()).backbone
    units = units_of(backbone)
    assert said(units) == EXPECTED[host]() and len(units) == len(EXPECTED[host]())
    assert said(units_of(build_model(HOSTS[host].config(), meta=True).backbone)) == said(units)
    names = {n for n, _ in backbone.named_parameters()}
    skipped = names - {u.param for u in units}
    allowed = ('cls_token', 'pos_embed', 'patch_embed', 'relative_position_bias_table', 'gamma')
    assert skipped and all(any(word in name for word in allowed) for name in skipped), skipped


@pytest.mark.parametrize('host', EXPECTED)
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


@pytest.mark.parametrize('host', EXPECTED)
def test_blocks_are_numbered(host):
    for unit in units_of(build_model(HOSTS[host].config()).backbone):
        numbers = [int(part) for part in unit.param.split('.')[:-1] if part.isdigit()]
        inside = '.ln' in unit.param or '.norm' in unit.param or '.attn.' in unit.param or 'mlp' in unit.param
        if inside or 'ffn' in unit.param:
            assert unit.block == numbers[1 if host == 'swin3d' else 0], unit
        else:
            assert unit.block is None, unit


def test_blocks_are_numbered_through_the_stages():
    units = units_of(build_model(config(depths=(1, 2))).backbone)
    blocks = {u.param.partition('.attn')[0]: u.block for u in units if u.kind == 'proj'}
    assert blocks == {'layers.0.blocks.0': 0, 'layers.1.blocks.0': 1, 'layers.1.blocks.1': 2}
    assert not any(u.param.startswith('layers.0.downsample.reduction') for u in units)


def test_deltas_are_no_units():
    deltas = dict(lora=dict(type='LoRA', at='qkv'), adapter=dict(type='AdaptMLP', at='mlp'))
    host = HOSTS['vit']
    assert said(units_of(build_model(host.config(deltas)).backbone)) == vit()


def test_without_biases():
    backbone = build_model(HOSTS['vit'].config(qkv_bias=False)).backbone
    assert not any('qkv.bias' in u.name for u in units_of(backbone))
    backbone = build_model(HOSTS['videomae'].config(qkv_bias=False)).backbone
    assert not any('q_bias' in u.name or 'v_bias' in u.name for u in units_of(backbone))
