"""What is merged is the plain model, with the outputs of the tuned one."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
from chosen import SEEDS, options, tuned, written
from mmengine.registry import MODELS
from tiny import HOSTS, features
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import Delta, merge

SPT_HOSTS = ['vit', 'vit_layerscale', 'videomae', 'swin3d', 'swin2d']


def types(model: nn.Module) -> dict[str, type]:
    return {n: type(m) for n, m in model.named_modules()}


def check_plain(model: nn.Module, host: tiny.Host) -> None:
    plain = build_model(host.config()).eval()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert types(model) == types(plain)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(features(plain, host.sample()), features(model, host.sample()))


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('name', SPT_HOSTS)
def test_spt_lora_merged_is_the_plain_model(name, seed, tmp_path):
    host = HOSTS[name]
    model = tuned(host, tmp_path, seed=seed)
    with torch.no_grad():
        before = tiny.classify(model, host.sample())
    untouched = build_model(host.config()).eval()
    untouched.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k})
    with torch.no_grad():
        assert (tiny.classify(untouched, host.sample()) - before).norm() > 0.05 * before.norm(), 'the deltas matter'
        assert merge(model) is model
        after = tiny.classify(model, host.sample())
    assert (after - before).norm() < 1e-5 * before.norm()
    check_plain(model, host)
    model, x = tuned(host, tmp_path, seed=seed).double(), host.sample().double()
    before = features(model, x)
    assert (features(merge(model), x) - before).norm() < 1e-12 * before.norm()


def test_where_what_is_tuned_goes(tmp_path):
    """Each weight is W + S, W + B A, or as it was; q, k and v apart, VideoMAE's q_bias and v_bias included."""
    for name in ('vit', 'videomae'):
        host = HOSTS[name]
        for seed in SEEDS:
            model = tuned(host, tmp_path, seed=seed)
            before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
            rows = model.spt.allocation.rows
            after = merge(model).backbone.state_dict()
            for row in rows:
                param, _, slot = row.name.partition('[')
                start = 'qkv'.index(slot[0]) * row.shape[0] if slot else 0
                part = slice(start, start + row.shape[0])
                change = (after[param][part] - before[param][part]).flatten()
                if row.choice == 'sparse':
                    index = model.spt.allocation.sparse[row.name].long()
                    moved = change.nonzero().flatten()
                    assert torch.equal(moved, index), row.name
                elif row.choice == 'structured':
                    assert torch.linalg.matrix_rank(change.view(row.shape).double(), atol=1e-4) == 2, row.name
                elif row.choice == 'whole' and slot:
                    assert change.all(), row.name
                else:
                    assert not change.any(), row.name
    assert before.keys() >= {'blocks.0.attn.q_bias', 'blocks.0.attn.v_bias'}


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_nothing_trains_afterwards_and_copies_work(name, tmp_path):
    host = HOSTS[name]
    model = merge(tuned(host, tmp_path))
    assert not any(p.requires_grad for p in model.parameters()) and model.plan.count()['trainable'] == 0
    assert not any(isinstance(m, Delta) for m in model.modules()) and model.plan.settings() == {}
    expected = features(model, host.sample())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(features(twin, host.sample()), expected)
    assert torch.equal(features(merge(model), host.sample()), expected), 'a second time is no harm'


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_lora_alone_is_merged_with_its_strength(name):
    host = HOSTS[name]
    deltas = {
        'one': dict(type='LoRA', at='qkv', slots='qv', rank=2, alpha=6),
        'two': dict(type='LoRA', at='qkv', slots='k', rank=3),
        'three': dict(type='LoRA', at='fc2', rank=1, dropout=0.5),
    }
    model = host.build(deltas)
    before = features(model, host.sample())
    assert (features(merge(model), host.sample()) - before).norm() < 1e-5 * before.norm()
    check_plain(model, host)


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
@pytest.mark.parametrize(
    'deltas',
    [
        dict(lora=dict(type='LoRA', at='qkv', rank=2), adapter=dict(type='AdaptMLP', at='mlp', d_bottle=2)),
        dict(patt=dict(type='PATT', at='qkv', d_bottle=2)),
        dict(prompt=dict(type='Prompt', num_tokens=2)),
        dict(lora=dict(type='LoRA', at='qkv', rank=2), behind=dict(type='LinearAdapter', at='fc2', d_bottle=2)),
    ],
    ids='-'.join,
)
def test_what_is_no_update_of_weights_is_refused_and_nothing_changes(name, deltas):
    host = HOSTS[name]
    check_refused(host.build(deltas), host)


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_spt_adapter_and_spt_lora_beside_an_adapter_are_refused(name, tmp_path):
    host = HOSTS[name]
    check_refused(tuned(host, tmp_path, 'AdaptMLP'), host)
    adapter = dict(adapter=dict(type='AdaptMLP', at='mlp', d_bottle=2))
    check_refused(host.build(adapter, petl=options(written(host, tmp_path))), host)


def check_refused(model: nn.Module, host: tiny.Host) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kinds, trained, y = types(model), tiny.trainable(model), features(model, host.sample())
    with pytest.raises(UserError, match='cannot be merged'):
        merge(model)
    assert types(model) == kinds and tiny.trainable(model) == trained
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
    assert torch.equal(features(model, host.sample()), y)


class Gain(Delta):
    """gamma (W x + b)."""

    places = ('fc1',)
    reads = 'weights'

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(()))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.gamma)

    def update(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * self.gamma, bias * self.gamma


class GainBehind(Gain):
    """An update that also changes the output, which no weight holds."""

    def after(self, y: Tensor) -> Tensor:
        return 3 * y


@pytest.mark.parametrize('order', [('gain', 'lora'), ('lora', 'gain')])
def test_an_update_and_lora_on_one_layer_are_merged_in_either_order(order, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Gain', Gain)
    host = HOSTS['vit']
    specs = dict(gain=dict(type='Gain'), lora=dict(type='LoRA', at='fc1', rank=2))
    model = host.build({name: specs[name] for name in order})
    expected = features(model, host.sample())
    torch.testing.assert_close(features(merge(model), host.sample()), expected, atol=1e-5, rtol=1e-5)


def test_what_also_changes_the_output_is_not_merged(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'GainBehind', GainBehind)
    with tiny.refused('GainBehind', 'merged'):
        merge(HOSTS['vit'].build(dict(gain=dict(type='GainBehind'))))
