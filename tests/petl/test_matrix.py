"""Every delta, alone and in combination, crossed with every behaviour that all of them share."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from vpetl_mm import build_model

C = 16  # the width of the small model
BLOCKS = ('backbone.layers.0.blocks.0', 'backbone.layers.0.blocks.1')


@dataclass(frozen=True)
class Case:
    """``deltas`` as in a config, and what they add to one block: name below the block -> shape."""

    deltas: dict[str, dict[str, Any]]
    added: dict[str, tuple[int, ...]]

    def zeroed(self) -> dict[str, dict[str, Any]]:
        """The same deltas, all starting at zero."""
        specs = self.deltas.items()
        return {n: dict(s, init='zero') if s['type'] == 'PATT' else s for n, s in specs}


def patt(name: str = 'patt', r: int = 4, slots: str = 'kv', bias: Any = True, **options: Any) -> Case:
    host = f'attn.qkv.deltas.{name}'
    added: dict[str, tuple[int, ...]] = {
        f'{host}.down.weight': (r, C),
        f'{host}.up.weight': (len(slots) * C, r),
    }
    if bias in (True, 'down'):
        added[f'{host}.down.bias'] = (r,)
    if bias is True:
        added[f'{host}.up.bias'] = (len(slots) * C,)
    if options.get('learn_scale'):
        added[f'{host}.scale'] = ()
    spec = dict(type='PATT', at='qkv', slots=slots, d_bottle=r, bias=bias, **options)
    return Case({name: spec}, added)


def adapter(name: str = 'adapter', r: int = 4, **options: Any) -> Case:
    host = f'mlp.deltas.{name}'
    shapes = {'down.weight': (r, C), 'down.bias': (r,), 'up.weight': (C, r), 'up.bias': (C,)}
    added: dict[str, tuple[int, ...]] = {f'{host}.{n}': shape for n, shape in shapes.items()}
    if options.get('learn_scale'):
        added[f'{host}.scale'] = ()
    return Case({name: dict(type='AdaptMLP', at='mlp', d_bottle=r, **options)}, added)


def lora(at: str, name: str = 'lora', rank: int = 2, slots: str = 'qv', **options: Any) -> Case:
    d_in, d_out = {'qkv': (C, C), 'proj': (C, C), 'fc1': (C, 4 * C), 'fc2': (4 * C, C)}[at]
    host = {'qkv': 'attn.qkv', 'proj': 'attn.proj', 'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2'}[at]
    added = {}
    for slot in slots if at == 'qkv' else ['out']:
        added[f'{host}.deltas.{name}.A.{slot}.weight'] = (rank, d_in)
        added[f'{host}.deltas.{name}.B.{slot}.weight'] = (d_out, rank)
    options = dict(options, slots=slots) if at == 'qkv' else options
    return Case({name: dict(type='LoRA', at=at, rank=rank, **options)}, added)


def both(*cases: Case) -> Case:
    deltas: dict[str, dict[str, Any]] = {}
    added: dict[str, tuple[int, ...]] = {}
    for case in cases:
        assert not deltas.keys() & case.deltas.keys()
        deltas |= case.deltas
        added |= case.added
    return Case(deltas, added)


CASES = {
    'patt_kv': patt(),
    'patt_qv': patt(slots='qv'),
    'patt_qk': patt(slots='qk'),
    'patt_qkv': patt(slots='qkv'),
    'patt_relu': patt(act='ReLU'),
    'patt_gelu': patt(act='GELU'),
    'patt_no_bias': patt(bias=False),
    'patt_bias_down': patt(bias='down'),
    'patt_learn_scale': patt(slots='qkv', learn_scale=True),
    'patt_zero': patt(init='zero'),
    'adapter': adapter(),
    'adapter_learn_scale': adapter(learn_scale=True),
    'adapter_sequential': adapter(mode='sequential'),
    'adapter_residual': adapter(source='residual'),
    'adapter_dropout': adapter(dropout=0.5),
    'lora_qkv': lora('qkv'),
    'lora_qkv_k': lora('qkv', slots='k'),
    'lora_proj': lora('proj'),
    'lora_fc1': lora('fc1'),
    'lora_fc2': lora('fc2', alpha=4),
    'bapat': both(patt(), adapter()),
    'patt_and_lora': both(patt(), lora('qkv', slots='qkv')),
    'two_patts': both(patt('one', slots='kv'), patt('two', slots='qk', r=3)),
    'lora_everywhere': both(*(lora(at, f'lora_{at}') for at in ('qkv', 'proj', 'fc1', 'fc2'))),
    'three_adapters': both(
        adapter('beside'), adapter('behind', mode='sequential'), adapter('outside', source='residual')
    ),
}
every_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())


def expected_names(case: Case) -> dict[str, tuple[int, ...]]:
    return {f'{block}.{name}': shape for block in BLOCKS for name, shape in case.added.items()}


def plain_of(model: nn.Module, **options: Any) -> nn.Module:
    """The same model without deltas, with the same weights."""
    plain = tiny.tiny(**options)
    missing = plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k}, strict=True)
    assert not missing.missing_keys
    return plain


def features(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.backbone(x)


@every_case
def test_adds_keys_and_nothing_else(case):
    model, plain = build_model(tiny.config(case.deltas)), build_model(tiny.config())
    ours, theirs = model.state_dict(), plain.state_dict()
    assert ours.keys() >= theirs.keys()
    assert {k: tuple(v.shape) for k, v in ours.items() if k not in theirs} == expected_names(case)
    assert all(ours[k].shape == v.shape for k, v in theirs.items())


@every_case
def test_a_plain_checkpoint_loads_unchanged(case):
    model, plain = build_model(tiny.config(case.deltas)), tiny.tiny(seed_weights=5)
    keys = model.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert set(keys.missing_keys) == set(expected_names(case))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in plain.state_dict().items())


@every_case
def test_starts_at_zero_as_the_plain_model(case):
    model = build_model(tiny.config(case.zeroed()), init_weights=True).eval()
    assert torch.equal(features(model, tiny.clip()), features(plain_of(model), tiny.clip()))


@every_case
def test_each_delta_reaches_the_output(case):
    model = tiny.tiny(case.deltas)
    outputs = [features(plain_of(model), tiny.clip())]
    kept = {n: p.clone() for n, p in model.named_parameters()}
    with torch.no_grad():  # all silent, then one after the other
        for name, parameter in model.named_parameters():
            if '.deltas.' in name:
                parameter.zero_()
        assert torch.equal(features(model, tiny.clip()), outputs[0])
        for delta in case.deltas:
            for name, parameter in model.named_parameters():
                if f'.deltas.{delta}.' in name:
                    parameter.copy_(kept[name])
            outputs.append(features(model, tiny.clip()))
    for before, after in pairwise(outputs):
        assert (before - after).abs().max() > 1e-4


@every_case
def test_only_what_should_train_trains(case):
    model = tiny.tiny(case.deltas, train=['head'])
    model.train()
    before = copy.deepcopy(model.state_dict())
    wanted = {*expected_names(case), 'cls_head.fc_cls.weight', 'cls_head.fc_cls.bias'}
    assert tiny.trainable(model) == wanted

    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    tiny.logits(model, tiny.clip()).square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == wanted
    optimizer.step()

    after = model.state_dict()
    assert {k for k in before if not torch.equal(before[k], after[k])} == wanted


@every_case
def test_freezing_the_head_leaves_the_deltas(case):
    assert tiny.trainable(build_model(tiny.config(case.deltas, train=[]))) == set(expected_names(case))


@every_case
@pytest.mark.parametrize('how', ['deepcopy', 'pickle'])
def test_copies_are_equal_and_independent(case, how):
    model = tiny.tiny(case.deltas)
    before = features(model, tiny.clip())
    twin = copy.deepcopy(model) if how == 'deepcopy' else pickle.loads(pickle.dumps(model))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert tiny.trainable(twin) == tiny.trainable(model)
    assert twin.plan.model is twin
    assert torch.equal(features(twin, tiny.clip()), before)

    tiny.randomised(twin, seed=9)
    assert not torch.equal(features(twin, tiny.clip()), before)
    assert torch.equal(features(model, tiny.clip()), before)


@every_case
def test_compiles_without_a_graph_break(case):
    model = tiny.tiny(case.deltas, depths=(1,))
    expected = features(model, tiny.clip())
    torch._dynamo.reset()
    compiled = torch.compile(model.backbone, backend='eager', fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(tiny.clip()), expected, atol=1e-6, rtol=1e-6)


def bounds_hold(drawn: Tensor, fan_in: int) -> bool:
    """Drawn as nn.Linear draws: uniform within 1 / sqrt(fan_in), and, where many are drawn, not narrower."""
    bound, largest = fan_in**-0.5, drawn.abs().max()
    return bool(0 < largest <= bound and (drawn.numel() < 16 or largest > 0.5 * bound))


@every_case
def test_initialisation_is_the_deltas_own(case):
    model = build_model(tiny.config(case.deltas, seed=3), init_weights=True)
    state = model.state_dict()
    for name in expected_names(case):
        delta, parameter = name.split('.deltas.')[1].split('.', 1)
        spec, value = case.deltas[delta], state[name]
        zero = {'AdaptMLP': ('up', 'down.bias'), 'LoRA': ('B',), 'PATT': ()}[spec['type']]
        if spec.get('init') == 'zero':
            zero = ('up',)
        if parameter == 'scale':
            assert value.item() == pytest.approx({'PATT': 0.8, 'AdaptMLP': 0.1}[spec['type']])
        elif parameter.startswith(zero):
            assert not value.any(), name
        else:
            fan_in = state[name.removesuffix('bias').removesuffix('weight') + 'weight'].shape[1]
            assert bounds_hold(value, fan_in), name


@every_case
def test_the_host_is_initialised_by_its_own_rule(case):
    with_deltas = build_model(tiny.config(case.deltas, seed=3), init_weights=True)
    for block in with_deltas.backbone.layers[0].blocks:
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert not linear.bias.any()
            assert 0.01 < linear.weight.std() < 0.03  # truncated normal, 0.02
