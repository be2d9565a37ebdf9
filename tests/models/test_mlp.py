"""The hidden layer in one call against its parts, and that the parts are there for whoever looks at them."""

from __future__ import annotations

import pytest
import tiny
import torch
from mmcv.cnn.bricks.transformer import FFN
from onednn import fused, products
from torch import nn

from vpetl_mm.models.gelu import GELU8Bit
from vpetl_mm.models.mlp import FastHidden, FastMlp
from vpetl_mm.petl import FastLinear

HOSTS = tiny.HOSTS
ADAPTER = dict(adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5))


def hidden_of(model: nn.Module, host: str) -> tuple[nn.Module, nn.Module]:
    """fc1 and GELU of the first block."""
    mlp = HOSTS[host].part(HOSTS[host].blocks(model)[0], 'mlp')
    return (mlp.fc1, mlp.act) if hasattr(mlp, 'fc1') else (mlp.layers[0][0], mlp.layers[0][1])


@pytest.mark.parametrize('host', HOSTS)
def test_the_linear_layers_of_every_block_are_exchanged(host):
    model = HOSTS[host].build(ADAPTER)
    for block in HOSTS[host].blocks(model):
        for place in ('qkv', 'proj', 'fc1', 'fc2'):
            assert type(HOSTS[host].part(block, place)) is FastLinear
        mlp = HOSTS[host].part(block, 'mlp')
        assert isinstance(mlp, FastMlp) or (isinstance(mlp, FFN) and type(mlp.layers[0]) is FastHidden)


@pytest.mark.parametrize('host', HOSTS)
def test_the_plain_path_has_none_of_it(host):
    model = HOSTS[host].build(ADAPTER, petl=dict(attention=None))
    found = [n for n, m in model.named_modules() if isinstance(m, (FastLinear, FastMlp, FastHidden))]
    assert found and all('.deltas.adapter.down' in name for name in found), 'a delta is the same on every path'


def check_inference(host: str, deltas: dict, **fused_in_ours: int) -> None:
    """Our path against the host library's, without oneDNN."""
    fast, plain = HOSTS[host].build(deltas), HOSTS[host].build(deltas, petl=dict(attention=None))
    plain.load_state_dict(fast.state_dict())
    x = HOSTS[host].sample()
    with fused(**fused_in_ours):
        ours = tiny.features(fast, x)
    with torch.backends.mkldnn.flags(enabled=False), products():
        theirs = tiny.features(plain, x)
    assert theirs.any() and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize('deltas', [{}, ADAPTER], ids=['plain', 'adapter'])
@pytest.mark.parametrize('host', HOSTS)
def test_inference(host, deltas):
    check_inference(host, deltas, gelu=2)


@pytest.mark.parametrize('host', HOSTS)
def test_a_delta_on_fc1_lies_in_front_of_gelu(host):
    check_inference(host, dict(lora=dict(type='LoRA', at='fc1', rank=2)))


@pytest.mark.parametrize('host', HOSTS)
def test_training_keeps_what_lies_between(host):
    model = HOSTS[host].build(ADAPTER)

    def grad() -> torch.Tensor:
        x = HOSTS[host].sample().requires_grad_()
        y = model.backbone(x)
        y = y[-1] if isinstance(y, tuple) else y
        return torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), x)[0]

    with products(none=16):  # four layers in each of two blocks, forward and backward
        ours = grad()
    with torch.backends.mkldnn.flags(enabled=False), products():
        theirs = grad()
    assert theirs.any() and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize('watched', ['fc1', 'act'])
@pytest.mark.parametrize('host', HOSTS)
def test_a_hook_sees_what_lies_between(host, watched):
    model, x, seen = HOSTS[host].build(), HOSTS[host].sample(), {}
    fc1, act = hidden_of(model, host)
    hooks = dict(
        fc1=lambda: fc1.register_forward_hook(lambda m, a, y: seen.update(y=y)),
        act=lambda: act.register_forward_pre_hook(lambda m, a: seen.update(y=a[0])),
    )
    expected = tiny.features(model, x)
    handle = hooks[watched]()
    with fused(gelu=1):
        torch.testing.assert_close(tiny.features(model, x), expected)
    handle.remove()
    assert (seen['y'] < -0.2).any(), 'GELU gives nothing below -0.17'


@pytest.mark.parametrize('host', HOSTS)
def test_gelu_in_8_bits_is_exact_in_inference(host):
    bits, plain = HOSTS[host].build(petl=dict(gelu='8bit')), HOSTS[host].build()
    bits.load_state_dict(plain.state_dict())
    assert isinstance(hidden_of(bits, host)[1], GELU8Bit)
    x = HOSTS[host].sample()
    with fused(gelu=4):
        assert torch.equal(tiny.features(bits, x), tiny.features(plain, x))


@pytest.mark.parametrize('act', [nn.GELU('tanh'), nn.ReLU()], ids=['tanh', 'relu'])
def test_other_activations_stay_what_they_are(act):
    hidden = FastHidden(FastLinear(8, 16).requires_grad_(False), act, nn.Dropout(0.5)).eval()
    x = torch.randn(3, 8)
    with fused():
        assert torch.equal(hidden(x), act(hidden[0](x)))


def test_dropout_lies_behind_it():
    hidden = FastHidden(FastLinear(8, 4000).requires_grad_(False), nn.GELU(), nn.Dropout(0.5))
    with fused(gelu=1):
        y = hidden(torch.randn(1, 8))  # a frozen backbone's features: training, and no gradient
    assert 0.4 < (y == 0).float().mean() < 0.6


def test_weights_that_train_take_the_plain_way():
    hidden = FastHidden(FastLinear(8, 16), nn.GELU(), nn.Identity())
    with fused():
        y = hidden(torch.randn(3, 8))
    assert y.requires_grad
