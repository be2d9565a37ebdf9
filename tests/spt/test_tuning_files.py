"""Tuned models saved, copied and compiled: adapter files come back, and those of another choice are refused."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import tiny
import torch
from chosen import by_hand, tuned, written
from test_tuning import KINDS, NAMES, build
from tiny import HOSTS, features
from torch import nn

from vpetl_mm import UserError, build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, load_trained, trained_meta
from vpetl_mm.spt.allocation import write_allocation


@pytest.mark.parametrize('structured', KINDS)
@pytest.mark.parametrize('name', NAMES)
def test_an_adapter_file_comes_back(name, structured, tmp_path):
    host = HOSTS[name]
    file = written(host, tmp_path, structured)
    trained, fresh = (build(host, file, structured, seed=5).eval() for _ in range(2))
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    state = adapter_state(trained)
    index = {k for k in trained.state_dict() if k.endswith('_index') and '.deltas.' in k}
    params = {n for n, p in trained.named_parameters() if p.requires_grad}
    assert index and set(state) == params | index | {k for k in trained.state_dict() if k.startswith(host.head)}
    stored = sum(v.numel() for k, v in state.items() if not k.startswith(host.head))
    entries = sum(len(i) for i in trained.spt.allocation.sparse.values())
    wholes = sum(r.params for r in trained.spt.allocation.rows if r.choice == 'whole')
    assert stored <= trained.spt.allocation.params + entries + wholes, 'index and value, nothing dense'
    torch.save(dict(state_dict=state, meta=dict(adapter_format=FORMAT, **trained_meta(trained))), tmp_path / 'a.pth')
    expected = features(trained, host.sample())
    assert not torch.equal(features(fresh, host.sample()), expected)
    load_trained(fresh, tmp_path / 'a.pth')
    assert torch.equal(features(fresh, host.sample()), expected)


def save(model: nn.Module, file):
    meta = dict(adapter_format=FORMAT, **trained_meta(model))
    torch.save(dict(state_dict=adapter_state(model), meta=meta), file)
    return file


def test_an_adapter_of_another_choice_is_refused(tmp_path):
    """Of other positions alone, as many in each place, so that names and shapes are the same."""
    host = HOSTS['vit']
    backbone = build_model(host.config()).backbone
    allocation = by_hand(backbone)
    moved = {n: torch.arange(len(i), dtype=torch.int32) for n, i in allocation.sparse.items()}
    files = [tmp_path / 'one.safetensors', tmp_path / 'two.safetensors']
    write_allocation(files[0], allocation)
    write_allocation(files[1], replace(allocation, sparse=moved))
    one, two = (build(host, f, seed=5) for f in files)
    adapter = save(one, tmp_path / 'a.pth')
    before = copy.deepcopy(two.state_dict())
    with pytest.raises(UserError, match=r'petl\.spt\.file chooses other parameters') as error:
        load_trained(two, adapter)
    assert 'a.pth' in str(error.value) and '\n' not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in two.state_dict().items())
    other = build(host, written(host, tmp_path, seed=1), seed=5)
    for theirs in (other, build_model(host.config(seed=5), init_weights=True)):
        with pytest.raises(UserError, match='another config'):
            load_trained(theirs, adapter)
    plain = build_model(host.config(dict(lora=dict(type='LoRA', at='qkv')), seed=5), init_weights=True)
    with pytest.raises(UserError, match='another config'):
        load_trained(one, save(plain, tmp_path / 'b.pth'))


def test_an_adapter_from_before_loras_dropout_still_loads(tmp_path):
    host = HOSTS['vit']
    deltas = dict(lora=dict(type='LoRA', at='qkv', rank=2))
    model, fresh = (build_model(host.config(deltas, seed=5), init_weights=True) for _ in range(2))
    file = save(tiny.randomised(model.head) and model, tmp_path / 'a.pth')
    content = torch.load(file, weights_only=True)
    assert content['meta']['deltas']['lora'].pop('dropout') == 0.0
    torch.save(content, file)
    load_trained(fresh, file)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in fresh.state_dict().items())
    dropping = build_model(host.config(dict(lora=dict(deltas['lora'], dropout=0.5)), seed=5), init_weights=True)
    with pytest.raises(UserError, match=r'petl\.deltas\.lora\.dropout is 0\.0 there and 0\.5 here'):
        load_trained(dropping, file)


@pytest.mark.parametrize('how', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle'])
@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_copies_are_equal_and_independent(name, how, tmp_path):
    host = HOSTS[name]
    model = tuned(host, tmp_path)
    before = features(model, host.sample())
    twin = how(model)
    assert list(twin.state_dict()) == list(model.state_dict()) and tiny.trainable(twin) == tiny.trainable(model)
    assert torch.equal(features(twin, host.sample()), before)
    tiny.randomised(twin, 9)
    assert torch.equal(features(model, host.sample()), before)
    assert not torch.equal(features(twin, host.sample()), before)


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_is_captured_as_one_graph(name, tmp_path):
    host = HOSTS[name]
    model = tuned(host, tmp_path, seed=1)
    expected = features(model, host.sample())
    torch._dynamo.reset()
    with torch.no_grad():
        y = torch.compile(model.backbone, backend='eager', fullgraph=True)(host.sample())
    torch.testing.assert_close(y[-1] if isinstance(y, tuple) else y, expected, atol=1e-6, rtol=1e-6)
