"""The ViTs' attention against the host libraries' own, and what petl.attention takes and refuses."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from mmaction.models.backbones.vit_mae import Attention
from mmengine.registry import MODELS
from mmpretrain.models.utils import MultiheadAttention
from steps import same, step
from tiny import HOSTS, features
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.models.attention import take_over
from vpetl_mm.models.token_attention import PETLMultiheadAttention, PETLVideoMAEAttention

DIM, HEADS = 12, 3
IMAGE = {
    'plain': dict(),
    'no_bias': dict(qkv_bias=False),
    'layer_scale': dict(layer_scale_init_value=0.1),
    'no_proj_bias': dict(proj_bias=False),
    'shortcut': dict(num_heads=1, input_dims=8, v_shortcut=True),
    'dropouts': dict(attn_drop=0.5, proj_drop=0.5, dropout_layer=dict(type='DropPath', drop_prob=0.5)),
}
VIDEO = {
    'plain': dict(),
    'no_bias': dict(qkv_bias=False),
    'qk_scale': dict(qk_scale=0.1),
    'dropouts': dict(attn_drop_rate=0.5, drop_rate=0.5),
}
PAIRS = {
    **{f'image-{n}': (MultiheadAttention, PETLMultiheadAttention, o) for n, o in IMAGE.items()},
    **{f'video-{n}': (Attention, PETLVideoMAEAttention, o) for n, o in VIDEO.items()},
}


def pair(theirs: type, cls: type, options: dict) -> tuple[nn.Module, nn.Module]:
    host = tiny.randomised(theirs(**{'embed_dims': DIM, 'num_heads': HEADS, **options})).eval()
    return host, take_over(cls(**cls.like(host)), copy.deepcopy(host))


def tokens(host: nn.Module) -> Tensor:
    return torch.randn(4, 7, host.qkv.in_features, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(('theirs', 'cls', 'options'), PAIRS.values(), ids=PAIRS.keys())
def test_equals_the_host_in_outputs_and_gradients(theirs, cls, options):
    host, ours = pair(theirs, cls, options)
    same(step(ours, tokens(ours)), step(host, tokens(host)))


@pytest.mark.parametrize('name', ['image-dropouts', 'video-dropouts'])
def test_dropouts_act_in_training_alone(name):
    _, ours = pair(*PAIRS[name])
    x = tokens(ours)
    assert torch.equal(ours(x), ours(x))
    ours.train()
    torch.manual_seed(0)  # drop-path may drop all of a batch
    assert not torch.equal(ours(x), ours(x))


@pytest.mark.parametrize(('theirs', 'cls', 'option'), [
    (MultiheadAttention, PETLMultiheadAttention, 'attn_drop'),
    (Attention, PETLVideoMAEAttention, 'attn_drop_rate'),
])  # fmt: skip
def test_the_attention_weights_are_dropped(theirs, cls, option):
    _, ours = pair(theirs, cls, {option: 0.5})
    ours.train()
    assert not torch.equal(ours(tokens(ours)), ours(tokens(ours)))


# In a model


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', ['videomae', 'vit', 'vit_layerscale', 'swin2d'])
def test_the_whole_backbone_equals_the_hosts_and_drops_alike(name, train):
    host = HOSTS[name]
    ours, theirs = (
        host.build({}, ['all'], depth=3, drop_path_rate=0.5, petl=dict(petl, fast=False)).train(train)
        for petl in ({}, dict(attention=None))
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    same(step(ours, host.sample(6)), step(theirs, host.sample(6)))
    types = [type(host.part(host.blocks(m)[0], 'attn')) for m in (ours, theirs)]
    assert issubclass(types[0], types[1]) and types[0] is not types[1]


# What is refused

KEYS = {
    'prefix': dict(type='Prefix', num_tokens=2, d_middle=2),
    'prompt': dict(type='Prompt', num_tokens=2),
    'concat': dict(type='PATT', d_bottle=2, mode='concat'),
}
PASSED_BY = {'patt': dict(type='PATT', d_bottle=2), 'lora': dict(type='LoRA', at='qkv', rank=1)}
NEEDS_OURS = [(h, s) for h in HOSTS for s in KEYS.values()] + [('videomae', s) for s in PASSED_BY.values()]


@pytest.mark.parametrize(('name', 'spec'), NEEDS_OURS, ids=lambda v: v if isinstance(v, str) else v['type'])
def test_the_hosts_attention_is_refused_where_it_would_pass_a_delta_by(name, spec):
    with tiny.refused('petl.deltas.mine', 'petl.attention') as said:
        build_model(HOSTS[name].config({'mine': spec}, petl=dict(attention=None)))
    assert str(said.value).count('. ') == 0 and str(said.value).endswith('.'), 'one sentence'


@pytest.mark.parametrize('name', ['swin3d', 'vit', 'vit_layerscale', 'swin2d'])
@pytest.mark.parametrize('spec', PASSED_BY.values(), ids=PASSED_BY)
def test_the_hosts_attention_serves_what_it_can(name, spec):
    """The same numbers with either attention."""
    host = HOSTS[name]
    models = [host.build({'mine': spec}, petl=p) for p in ({}, dict(attention=None))]
    outputs = [features(m, host.sample()) for m in models]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    plain = host.build(petl=dict(attention=None))
    plain.load_state_dict({k: v for k, v in models[0].state_dict().items() if 'deltas' not in k})
    assert not torch.allclose(outputs[1], features(plain, host.sample()), atol=1e-3)


OWN = {
    'swin3d': 'FastWindowAttention3D',
    'videomae': 'PETLVideoMAEAttention',
    'vit': 'PETLMultiheadAttention',
    'swin2d': 'FastWindowMSA',
}


@pytest.mark.parametrize('attention', OWN.values())
@pytest.mark.parametrize('name', OWN)
def test_another_hosts_attention_is_refused(name, attention):
    config = HOSTS[name].config(petl=dict(attention=dict(type=attention)))
    if attention == OWN[name]:
        built = HOSTS[name].part(HOSTS[name].blocks(build_model(config))[0], 'attn')
        assert isinstance(built, MODELS.get(attention))
        return
    with tiny.refused('petl.attention', attention, OWN[name]):
        build_model(config)


@pytest.mark.parametrize('attention', ['PETLMultiheadAttention', dict(type='PATT'), dict(type='NoSuch'), dict(), 3])
def test_what_is_no_attention_is_refused(attention):
    with tiny.refused('petl.attention', 'PETLMultiheadAttention'):
        build_model(HOSTS['vit'].config(petl=dict(attention=attention)))
