"""Every method on the vision models of transformers: what works there, and what is refused in one sentence."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from hf_hosts import HOSTS, V5, output, plain
from hf_methods import METHODS, SILENT, adapted, copy_of, hosts_of
from tiny import refused, trainable
from torch import nn

from vpetl_mm.petl.merging import merge_hosts

# of version 4 those whose attention or MLP is another, without the same once more behind another head
OLD = ['vit', 'dinov2_gated', 'dinov3', 'siglip2', 'siglip2_bare', 'swin', 'videomae', 'timesformer', 'vjepa2']
ROWS = {name: host for name, host in HOSTS.items() if V5 or name in OLD}
SERVED = [(name, method) for name, host in ROWS.items() for method in METHODS if method not in host.refuses]
TOGETHER = {name: 'all' if 'all' not in host.refuses else 'patt_qv' for name, host in ROWS.items()}
# one of each kind; a plain SigLIP 2 of version 4 cannot be captured
CAPTURED = ['vit', 'dinov3', 'siglip2', 'swin', 'videomae', 'timesformer']


def every(methods=METHODS):
    pairs = [pair for pair in SERVED if pair[1] in methods]
    return pytest.mark.parametrize(('name', 'method'), pairs, ids=['-'.join(pair) for pair in pairs])


def wanted(name: str, method: str, model: nn.Module) -> set[str]:
    """The parameters that should train: those of the deltas, at the places written down by hand, and the head's."""
    deltas, heads = hosts_of(name, method), HOSTS[name].heads
    found = {n for n, _ in model.named_parameters() if n.startswith((*(f'{d}.' for d in deltas), *heads))}
    assert all(any(n.startswith(f'{delta}.') for n in found) for delta in deltas), deltas
    return found


@every()
def test_only_deltas_are_added_and_each_of_them_trains(name, method):
    model, theirs = copy_of(name), plain(name).state_dict()
    plan = adapted(model, name, method)
    added = {key for key in model.state_dict() if key not in theirs}
    assert {re.match(r'.*\.deltas\.\w+', key).group() for key in added} == hosts_of(name, method)
    assert trainable(model) == wanted(name, method, model) == {n for n, _ in plan.named_parameters()}
    keys = model.load_state_dict(theirs, strict=False)
    assert not keys.unexpected_keys and {*keys.missing_keys} == added

    y = output(model, HOSTS[name].inputs(2))
    assert (y - output(plain(name), HOSTS[name].inputs(2))).abs().max() > 1e-4
    y.square().mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert grads.keys() == trainable(model)
    # the same for every key is nothing to the softmax, so that only rounding may reach it
    assert not [n for n, g in grads.items() if not g.any() and not n.endswith(('.up.k.bias', '.k_proj.bias'))]
    torch.optim.SGD(plan.parameters(), lr=0.1).step()
    assert all(torch.equal(model.state_dict()[n], tensor) for n, tensor in theirs.items() if n not in grads)


@every(SILENT)
@torch.no_grad()
def test_starts_at_zero_as_the_plain_model(name, method):
    model = copy_of(name)
    adapted(model, name, method, zero=True)
    expected = output(plain(name), HOSTS[name].inputs(2))
    assert expected.std() > 1e-3 and torch.equal(output(model, HOSTS[name].inputs(2)), expected)


@every(['all', 'patt_qkv', 'shallow', 'sparse'])
@torch.no_grad()
def test_copies_are_equal(name, method):
    model = copy_of(name)
    plan = adapted(model, name, method)
    expected = output(model, HOSTS[name].inputs(2))
    for twin in copy.deepcopy(plan), pickle.loads(pickle.dumps(plan)):
        assert twin.model is not model and list(twin.model.state_dict()) == list(model.state_dict())
        assert torch.equal(output(twin.model, HOSTS[name].inputs(2)), expected)


@pytest.mark.parametrize(
    ('name', 'method', 'words'), [(n, m, words) for n, host in ROWS.items() for m, words in host.refuses.items()]
)
def test_what_does_not_fit_is_refused(name, method, words):
    with refused(*words):
        adapted(copy_of(name), name, method)


@every(['lora', 'sparse'])
@torch.no_grad()
def test_merged_it_is_a_plain_model_with_the_same_outputs(name, method):
    model = copy_of(name)
    plan = adapted(model, name, method)
    expected = output(model, HOSTS[name].inputs(2))
    merge_hosts(model.get_submodule(plan.backbone))
    assert list(model.state_dict()) == list(plain(name).state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain(name).modules()]
    torch.testing.assert_close(output(model, HOSTS[name].inputs(2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ROWS)
def test_gradient_checkpointing_changes_no_gradient_and_leaves_nothing_behind(name):
    models = [copy_of(name) for _ in range(2)]
    for model in models:
        adapted(model, name, TOGETHER[name])
    models[1].gradient_checkpointing_enable(dict(use_reentrant=False))  # which 4.57 has to be told
    for model in models:
        torch.manual_seed(0)  # DINOv3 draws its positions' scale in training
        output(model.train(), HOSTS[name].inputs(2)).square().mean().backward()
    ours, theirs = ({n: p.grad for n, p in m.named_parameters() if p.grad is not None} for m in models)
    assert ours.keys() == theirs.keys() == trainable(models[0])
    assert all(torch.equal(grad, theirs[n]) for n, grad in ours.items())
    copy.deepcopy(models[1])


@pytest.mark.parametrize('name', ROWS)
@torch.no_grad()
def test_an_adapted_model_is_saved_and_read_as_a_plain_one(name, tmp_path):
    model = copy_of(name)
    plan = adapted(model, name, TOGETHER[name])
    expected = output(model, HOSTS[name].inputs(2))
    model.save_pretrained(tmp_path / 'with')
    with plan.detached():
        model.save_pretrained(tmp_path / 'without')
    plain(name).save_pretrained(tmp_path / 'plain')
    files = [(tmp_path / folder / 'model.safetensors').read_bytes() for folder in ('without', 'plain')]
    assert files[0] == files[1]
    for folder in ('with', 'without'):
        state = type(model).from_pretrained(tmp_path / folder).state_dict()
        assert state.keys() == plain(name).state_dict().keys()
        assert all(torch.equal(tensor, plain(name).state_dict()[n]) for n, tensor in state.items())
    assert torch.equal(output(model, HOSTS[name].inputs(2)), expected)


@pytest.mark.parametrize('name', ROWS)
@torch.no_grad()
def test_hidden_states_are_as_many_and_the_same(name):
    model = copy_of(name)
    adapted(model, name, 'bapat', zero=True)
    ours, theirs = (m(**HOSTS[name].inputs(2), output_hidden_states=True).hidden_states for m in (model, plain(name)))
    assert len(ours) == len(theirs) >= 3 and all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize('name', ['vit', 'videomae', 'vjepa2'])
@torch.no_grad()
def test_what_a_model_has_recorded_before_hides_no_delta(name):
    """Version 4 leaves the plain class's forward on modules that it has recorded."""
    models = [copy_of(name) for _ in range(2)]
    models[0](**HOSTS[name].inputs(2), output_hidden_states=True, output_attentions=True)
    for model in models:
        adapted(model, name, 'patt_qv')
    assert torch.equal(*(output(model, HOSTS[name].inputs(2)) for model in models))


@pytest.mark.parametrize('name', CAPTURED if V5 else ['videomae'])
@torch.no_grad()
def test_is_captured_as_one_graph(name):
    model = first_blocks(name)
    adapted(model, name, 'all', METHODS['patt_qv'] | ({} if name == 'timesformer' else METHODS['prefix']))
    expected = output(model, HOSTS[name].inputs(2))
    torch._dynamo.reset()
    y = output(torch.compile(model, backend='eager', fullgraph=True), HOSTS[name].inputs(2))
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


def first_blocks(name: str) -> nn.Module:
    """A copy of a plain model with the first block alone, or the first stage."""
    model = copy_of(name)
    path = HOSTS[name].blocks[0].partition('.0')[0]
    blocks = model.get_submodule(f'{HOSTS[name].backbone}.{path}'.removeprefix('.'))
    del blocks[1:]
    return model
