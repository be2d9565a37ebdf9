"""Every method on every host of timm, torchvision and OpenCLIP, crossed with what all of them share."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import tiny
import torch
from timm_hosts import HOSTS, TimmHost, plain
from torch import nn

from vpetl_mm.petl import Plan, adapt

RANK = 6
LINEAR = ('qkv', 'proj', 'fc1', 'fc2')
ADDED = {
    'bapat': dict(
        patt=dict(type='PATT', d_bottle=RANK, init='zero'),
        adapter=dict(type='AdaptMLP', d_bottle=RANK),
    ),
    'patts': {slots: dict(type='PATT', d_bottle=RANK, slots=slots, init='zero') for slots in ('kv', 'qv', 'qkv')},
    'adapters': dict(
        beside=dict(type='AdaptMLP', d_bottle=RANK),
        behind=dict(type='AdaptMLP', d_bottle=RANK, mode='sequential'),
        residual=dict(type='AdaptMLP', d_bottle=RANK, source='residual'),
    ),
    'lora': {f'at_{at}': dict(type='LoRA', at=at, rank=RANK, slots='qkv') for at in LINEAR},
    'linear': {f'at_{at}': dict(type='LinearAdapter', at=at, d_bottle=RANK) for at in LINEAR},
}
JOINED = {
    'prefix': dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=RANK)),
    'prompt': dict(prompt=dict(type='Prompt', num_tokens=3)),
    'concat': dict(patt=dict(type='PATT', d_bottle=RANK, mode='concat')),
    'shallow': dict(prompt=dict(type='Prompt', num_tokens=3, deep=False)),
}
METHODS = {**ADDED, **JOINED}
# host, method -> words of the sentence that refuses it
REFUSED = {
    **{(name, 'shallow'): ('take no further', 'deep=True') for name, host in HOSTS.items() if not host.tokens},
    **{(name, 'concat'): ('order', 'concat') for name, host in HOSTS.items() if not host.ordered},
    ('res_post', 'adapters'): ('ResPostBlock', "source='norm'"),
    ('eva_post', 'adapters'): ('EvaBlockPostNorm', "source='norm'"),
    **{('diff', method): ('VisionTransformer', 'one call') for method in ('prefix', 'prompt', 'concat')},
}
SERVED = [(host, method) for host in HOSTS for method in METHODS if (host, method) not in REFUSED]


def pairs(of: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(('name', 'method'), [*of], ids=['-'.join(pair) for pair in of])


every = pairs(SERVED)
# one of each way in which q, k and v are computed
CAPTURED = [n for n in ('vit', 'eva02', 'eva02_apart', 'swin', 'hiera', 'torchvision', 'open_clip') if n in HOSTS]


def deltas_on(name: str, deltas: dict[str, Any]) -> tuple[nn.Module, Plan]:
    model, host = plain(name), HOSTS[name]
    return model, adapt(model, deltas, train=['head'] if host.head else [])


@cache
def unchanged(name: str) -> torch.Tensor:
    """The output of the plain model."""
    return HOSTS[name].out(plain(name)).detach()


@cache
def starting(name: str, method: str) -> nn.Module:
    """The model as :func:`adapt` leaves it."""
    return deltas_on(name, METHODS[method])[0]


def random(name: str, deltas: dict[str, Any]) -> tuple[nn.Module, Plan]:
    """The model with random deltas and a random head, in eval mode."""
    model, plan = deltas_on(name, deltas)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in plan.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model, plan


def several(name: str, *methods: str) -> dict[str, Any]:
    """The deltas of several methods, of those that the host serves."""
    served = [m for m in methods if (name, m) not in REFUSED]
    return {f'{method}_{delta}': spec for method in served for delta, spec in METHODS[method].items()}


def shape_names(host: TimmHost, method: str) -> set[str]:
    """The beginnings of the deltas' names, by hand."""
    places = dict(qkv=(host.qkv_host,), proj=(host.proj,), fc1=host.fc1, fc2=(host.fc2,), mlp=('mlp',))
    places['attn'] = (host.attn,)
    at = dict(PATT='qkv', AdaptMLP='mlp', Prefix='attn', Prompt='attn')
    if method == 'shallow':
        return {f'{host.blocks[0]}.deltas.prompt.'}
    named = METHODS[method].items()
    below = [f'{p}.deltas.{name}.' for name, spec in named for p in places[spec.get('at') or at[spec['type']]]]
    return {f'{block}.{b}' for block in host.blocks for b in below}


@every
def test_adds_keys_and_a_plain_checkpoint_loads(name, method):
    model, theirs = starting(name, method), plain(name).state_dict()
    ours = model.state_dict()
    added = {key for key in ours if key not in theirs}
    begin = shape_names(HOSTS[name], method)
    assert {key.partition('.deltas.')[0] for key in added} == {b.partition('.deltas.')[0] for b in begin}
    assert all(key.startswith(tuple(begin)) for key in added)
    assert all(any(key.startswith(b) for key in added) for b in begin)
    keys = model.load_state_dict(theirs, strict=False)
    assert not keys.unexpected_keys and {*keys.missing_keys} == added


@pairs([pair for pair in SERVED if pair[1] in ADDED])
def test_starts_at_zero_as_the_plain_model(name, method):
    expected = unchanged(name)
    assert expected.std() > 1e-3
    assert torch.equal(HOSTS[name].out(starting(name, method)), expected)


@every
def test_every_delta_reaches_the_output_and_learns(name, method):
    """Of every block: were one passed by, it would have no gradient."""
    model, plan = random(name, METHODS[method])
    host, before = HOSTS[name], copy.deepcopy(model.state_dict())
    y = host.out(model)
    assert (y - unchanged(name)).abs().max() > 1e-4
    y.square().mean().backward()
    trained = dict(plan.named_parameters())
    still = {n for n, p in trained.items() if p.grad is None or not p.grad.any()}
    # the same for every key is nothing to the softmax, so that only rounding may move it
    free = {n for n in trained if n.endswith('.up.k.bias')}
    assert still <= free
    assert all(p.grad is None for n, p in model.named_parameters() if n not in trained)
    heads = tuple(f'{head}.' for head in host.head)
    assert all('.deltas.' in n or n.startswith(heads) for n in trained)

    torch.optim.SGD(plan.parameters(), lr=0.1).step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed | free == {*trained}


@pytest.mark.parametrize('name', HOSTS)
def test_copies_are_equal_and_independent(name):
    model, _ = random(name, several(name, *METHODS))
    host, expected = HOSTS[name], HOSTS[name].out(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(host.out(twin), expected)
        tiny.randomised(twin, seed=9, std=0.2)
        assert not torch.equal(host.out(twin), expected)
        assert torch.equal(host.out(model), expected)


@pytest.mark.parametrize('name', CAPTURED)
def test_is_captured_as_one_graph_and_exported(name):
    """The first block, with deltas at every place."""
    model, _ = random(name, several(name, 'bapat', 'lora', 'prefix', 'prompt'))
    host = HOSTS[name]
    if name != 'hiera':  # whose later blocks need a width of their own
        stack, _, _ = host.blocks[0].rpartition('.')
        owner, _, attribute = stack.rpartition('.')
        setattr(model.get_submodule(owner), attribute, model.get_submodule(stack)[:1])
    with torch.no_grad():
        expected = host.out(model)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(host.out(compiled), expected, atol=1e-6, rtol=1e-6)
        exported = torch.export.export(model, (host.sample(),), dict(host.inputs)).module()
        torch.testing.assert_close(host.out(exported), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('name', HOSTS)
def test_checkpointing_of_activations_gives_the_same_gradients(name):
    """timm's switch runs each block again in the backward pass."""
    model, plan = random(name, several(name, 'bapat', 'adapters', 'prefix'))
    if not hasattr(model, 'set_grad_checkpointing'):
        pytest.skip('the model has no such switch')
    gradients = []
    for on in (False, True):
        model.set_grad_checkpointing(on)
        torch.manual_seed(0)  # Swin drops paths
        HOSTS[name].out(model.train()).square().mean().backward()
        gradients.append([p.grad.clone() for p in plan.parameters()])
        model.zero_grad()
    torch.testing.assert_close(*gradients)


@pairs(REFUSED)
def test_what_a_host_cannot_serve_is_refused(name, method):
    with tiny.refused(*REFUSED[name, method]):
        deltas_on(name, METHODS[method])
