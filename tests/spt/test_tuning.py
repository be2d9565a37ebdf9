"""From an SPT file to a model: what trains there, what it starts as, and which files are refused."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from chosen import RANK, SEEDS, by_hand, options, tuned, written
from mmengine.optim import build_optim_wrapper
from tiny import HOSTS, Host, features
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.petl import merge
from vpetl_mm.spt.allocation import write_allocation
from vpetl_mm.spt.choice import Settings
from vpetl_mm.spt.units import units_of

NAMES = ['vit', 'vit_layerscale', 'videomae', 'swin3d', 'swin2d']
KINDS = ['LoRA', 'AdaptMLP']


def build(host: Host, file, structured: str = 'LoRA', spt=None, **config) -> nn.Module:
    petl = options(file, **dict(dict(structured=structured), **(spt or {})))
    return build_model(host.config(petl=petl, **config), init_weights=True)


def plain_of(host: Host, model: nn.Module) -> nn.Module:
    plain = build_model(host.config()).eval().to(next(model.parameters()).dtype)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k}, strict=True)
    return plain


def slot_of(name: str) -> tuple[str, str]:
    """A unit's parameter, and 'q', 'k', 'v' or ''."""
    param, _, slot = name.partition('[')
    return param, slot.removesuffix(']')


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('structured', KINDS)
@pytest.mark.parametrize('name', NAMES)
def test_trains_what_is_allocated_and_starts_as_the_plain_backbone(name, structured, seed, tmp_path):
    host = HOSTS[name]
    model = build(host, written(host, tmp_path, structured, seed), structured, seed=1)
    count = model.plan.count()
    assert count['trainable'] - count['by']['head'] == model.spt.allocation.params > 0
    assert sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and not n.startswith(host.head)) == (
        model.spt.allocation.params
    )
    expected = features(plain_of(host, model), host.sample())
    assert expected.std() > 1e-3
    assert torch.equal(features(model.eval(), host.sample()), expected)


@pytest.mark.parametrize('structured', KINDS)
def test_on_the_meta_device_the_same_trains(structured, tmp_path):
    for name in NAMES:
        host = HOSTS[name]
        for seed in SEEDS:
            petl = options(written(host, tmp_path, structured, seed), structured)
            meta, real = build_model(host.config(petl=petl), meta=True), build_model(host.config(petl=petl))
            assert meta.plan.count() == real.plan.count()
            shapes = {k: v.shape for k, v in real.state_dict().items()}
            assert {k: v.shape for k, v in meta.state_dict().items()} == shapes
            assert all(t.is_meta for t in meta.state_dict().values())


@pytest.mark.parametrize('name', NAMES)
def test_every_kind_of_unit_is_tuned_in_every_way(name, tmp_path):
    """So that the tests above mean something."""
    backbone = build_model(HOSTS[name].config()).backbone
    seen = {(r.kind, r.choice) for seed in SEEDS for r in by_hand(backbone, seed=seed).rows}
    matrices = {(k, c) for k in ('q', 'k', 'v', 'proj', 'fc1', 'fc2') for c in ('structured', 'sparse', 'none')}
    assert seen == matrices | {(k, c) for k in ('norm', 'bias') for c in ('whole', 'sparse', 'none')}


def single(host: Host, folder, name: str, choice: str, structured: str = 'LoRA') -> nn.Module:
    """A model in which one unit alone is tuned; what trains is away from zero."""
    backbone = build_model(host.config()).backbone
    allocation = by_hand(backbone, structured)
    unit = next(u for u in units_of(backbone) if u.name == name)
    index = torch.tensor([0, unit.numel // 2, unit.numel - 1], dtype=torch.int32)
    params = 3 if choice == 'sparse' else Settings(structured, allocation.rank).cost(unit)
    rows = tuple(
        replace(r, choice=choice if r.name == name else 'none', params=params * (r.name == name))
        for r in allocation.rows
    )
    file = folder / 'single.safetensors'
    sparse = {name: index} if choice == 'sparse' else {}
    write_allocation(file, replace(allocation, rows=rows, sparse=sparse, params=sum(r.params for r in rows)))
    model = tiny.randomised(build_model(host.config(petl=options(file, structured))), 3).eval()
    for delta in model.plan.deltas():
        tiny.randomised(delta, 3, std=2.0)
    return model.double()


# per host: a matrix in each position, q and k and v apart, and vectors, VideoMAE's own among them
PLACES = {
    'vit': ['layers.0.attn.qkv', 'layers.1.ffn.layers.0.0', 'ln1', 'layers.1.ln2'],
    'videomae': ['blocks.0.attn.qkv', 'blocks.1.mlp.layers.1', 'fc_norm', 'blocks.0.norm1'],
    'swin3d': ['layers.0.blocks.1.attn.qkv', 'layers.0.blocks.0.attn.proj', 'norm0', 'layers.0.blocks.0.norm2'],
}
NORM = re.compile(r'norm\d?\.|ln\d\.')
UNITS = [
    (host, unit)
    for host, (fused, linear, *norms) in PLACES.items()
    for unit in [
        *(f'{fused}.weight[{s}]' for s in 'qkv'),
        *([] if host == 'videomae' else [f'{fused}.bias[{s}]' for s in 'qv']),
        *([f'{fused.removesuffix("qkv")}{s}_bias' for s in 'qv'] if host == 'videomae' else []),
        *(f'{path}.{p}' for path in (linear, *norms) for p in ('weight', 'bias')),
    ]
]


@pytest.mark.parametrize(('name', 'unit'), UNITS)
def test_single_entries_are_what_changing_these_entries_is(name, unit, tmp_path):
    host, (param, slot) = HOSTS[name], slot_of(unit)
    model = single(host, tmp_path, unit, 'sparse')
    deltas = {n: p for n, p in model.backbone.named_parameters() if '.deltas.' in n}
    (values,) = deltas.values()
    dense = plain_of(host, model)
    with torch.no_grad():
        target = dense.backbone.get_parameter(param)
        part = target.chunk(3)['qkv'.index(slot)] if slot else target
        before = features(dense, host.sample().double())
        flat, size = part.view(-1), part.numel()
        flat[[0, size // 2, size - 1]] += values
    expected = features(dense, host.sample().double())
    assert (before - expected).norm() > 1e-5 * expected.norm(), 'it matters'
    torch.testing.assert_close(features(model, host.sample().double()), expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(('name', 'unit'), [(n, u) for n, u in UNITS if '.weight' in u and not NORM.search(u)])
@pytest.mark.parametrize('structured', KINDS)
def test_a_whole_matrix_is_a_low_rank_update_or_an_adapter(name, unit, structured, tmp_path):
    host, (param, slot) = HOSTS[name], slot_of(unit)
    model = single(host, tmp_path, unit, 'structured', structured)
    dense, path = plain_of(host, model), param.removesuffix('.weight')
    layer, delta = dense.backbone.get_submodule(path), {
        n.rpartition('deltas.spt.')[2].replace(slot or 'out', 'x'): p
        for n, p in model.backbone.named_parameters() if '.deltas.' in n
    }  # fmt: skip
    width = layer.weight.shape[0] // (3 if slot else 1)
    start = 'qkv'.index(slot) * width if slot else 0

    def adapt(module, args, y):
        part = y[..., start : start + width]
        if structured == 'LoRA':
            change = args[0] @ delta['A.x.weight'].T @ delta['B.x.weight'].T
        else:
            seen = args[0] if path.endswith('proj') else part
            inner = F.gelu(F.linear(seen, delta['down.x.weight'], delta['down.x.bias']))
            change = F.linear(inner, delta['up.x.weight'], delta['up.x.bias'])
        y = y.clone()
        y[..., start : start + width] += change
        return y

    before = features(dense, host.sample().double())
    layer.register_forward_hook(adapt)
    expected = features(dense, host.sample().double())
    assert (before - expected).norm() > 1e-5 * expected.norm(), 'it matters'
    torch.testing.assert_close(features(model, host.sample().double()), expected, atol=1e-11, rtol=1e-11)
    shapes = {tuple(p.shape) for p in delta.values()}
    assert RANK in {s[0] for s in shapes}


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
@pytest.mark.parametrize('seed', SEEDS)
def test_training_changes_what_is_allocated_and_nothing_else(name, seed, tmp_path):
    host = HOSTS[name]
    model = build(host, written(host, tmp_path, 'LoRA', seed), train=[], seed=2).train()
    tiny.randomised(model, seed)
    for delta in model.plan.deltas():
        delta.reset_parameters()
    start = copy.deepcopy(merge(copy.deepcopy(model)).state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        tiny.classify(model, host.sample(4, seed=step)).square().mean().backward()
        optimizer.step()
    allocation = model.spt.allocation
    after = merge(model).state_dict()
    free = {}  # which entries of which parameter may change
    for row in allocation.rows:
        param, slot = slot_of(row.name)
        mask = free.setdefault(f'backbone.{param}', torch.zeros_like(start[f'backbone.{param}'], dtype=torch.bool))
        part = mask.chunk(3)['qkv'.index(slot)] if slot else mask
        if row.choice in ('structured', 'whole'):
            part.fill_(True)
        elif row.choice == 'sparse':
            part.view(-1)[allocation.sparse[row.name].long()] = True
    for key, value in after.items():
        if key.startswith(f'{host.head}.bn.'):  # the statistics of a head's BatchNorm
            continue
        changed = value != start[key]
        assert not (changed & ~free.get(key, torch.zeros_like(changed))).any(), key
        if key in free and free[key].any() and 'qkv.bias' not in key:  # k's bias has no gradient
            assert changed[free[key]].float().mean() > 0.9, key


@pytest.mark.parametrize('structured', KINDS)
@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_under_autocast(name, structured, tmp_path):
    host = HOSTS[name]
    model = tiny.randomised(tuned(host, tmp_path, structured, seed=2), 3, std=0.1)
    expected = features(model, host.sample())
    with torch.autocast('cpu', torch.bfloat16):
        y = model.backbone(host.sample())
    y = (y[-1] if isinstance(y, tuple) else y).float()
    assert (y - expected).norm() < 0.05 * expected.norm()
    y.square().mean().backward()
    grads = {n: p.grad for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in grads.values())


def test_the_host_is_initialised_as_without_deltas(tmp_path):
    for name in ('vit', 'videomae', 'swin3d'):
        host = HOSTS[name]
        state = build(host, written(host, tmp_path), seed=4).state_dict()
        plain = build_model(host.config(seed=4), init_weights=True)
        assert all(torch.equal(state[k], v) for k, v in plain.state_dict().items())


def test_the_class_token_trains_where_it_is_chosen(tmp_path):
    host = HOSTS['vit']
    token = build(host, written(host, tmp_path)).backbone.cls_token.numel()
    total = by_hand(build_model(host.config()).backbone).params
    model = build(host, written(host, tmp_path, class_token=True, params=total + token))
    assert model.backbone.cls_token.requires_grad
    count = model.plan.count()
    assert count['trainable'] - count['by']['head'] == total + token == model.spt.allocation.params


def test_dropout_is_on_structured_updates_but_those_of_the_output_projection(tmp_path):
    host = HOSTS['vit']
    for structured in KINDS:
        for seed in SEEDS:
            for spt, rate in ((None, 0.1), (dict(dropout=0.3), 0.3)):
                model = build(host, written(host, tmp_path, structured, seed), structured, spt)
                named = [(n, m.p) for n, m in model.backbone.named_modules() if n.endswith('deltas.spt.dropout')]
                assert named and all(p == (0 if '.proj.' in n else rate) for n, p in named)


def test_vectors_and_single_entries_are_not_decayed(tmp_path):
    """In the recipe of the configs."""
    from vpetl_mm.config import load_config

    host = HOSTS['vit']
    model = build(host, written(host, tmp_path))
    cfg = load_config('vit_sptlora_vtabkitti_in21k').optim_wrapper
    wrapper = build_optim_wrapper(model, dict(cfg, type='OptimWrapper'))
    decay = {id(p): g['weight_decay'] for g in wrapper.optimizer.param_groups for p in g['params']}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(decay) == len(trained)
    kinds = {(p.ndim == 1, decay[id(p)]) for p in trained.values()}
    assert kinds == {(True, 0.0), (False, 1e-4)}
    assert any(n.endswith('weight_value') for n, p in trained.items() if p.ndim == 1)
