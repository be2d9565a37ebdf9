"""AdaptMLP against Eq. 6 and 7, and where it sits in a block."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import HOSTS
from torch import Tensor, nn

from vpetl_mm.petl import AdaptMLP

D, R = 8, 3


def bottleneck(delta: AdaptMLP, x: Tensor) -> Tensor:
    """up(relu(down(x))), written out."""
    p = dict(delta.named_parameters())
    hidden = (x @ p['down.weight'].T + p['down.bias']).clamp_min(0)
    return hidden @ p['up.weight'].T + p['up.bias']


def sample() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 7, D, generator=generator), torch.randn(5, 7, D, generator=generator)


def test_parallel_is_equation_6():
    delta = tiny.randomised(AdaptMLP(D, d_bottle=R, scale=0.3))
    x, y = sample()
    torch.testing.assert_close(tiny.added(delta, x, y), y + 0.3 * bottleneck(delta, x))


def test_sequential_reads_the_branch():
    delta = tiny.randomised(AdaptMLP(D, d_bottle=R, scale=0.3, mode='sequential'))
    x, y = sample()
    torch.testing.assert_close(tiny.added(delta, x, y), y + 0.3 * bottleneck(delta, y))


def test_defaults_are_the_papers():
    delta = AdaptMLP(D)
    shapes = {n: tuple(p.shape) for n, p in delta.named_parameters()}
    assert shapes == {'down.weight': (64, D), 'down.bias': (64,), 'up.weight': (D, 64), 'up.bias': (D,)}
    tiny.randomised(delta)
    x, y = sample()
    torch.testing.assert_close(tiny.added(delta, x, y), y + 0.1 * bottleneck(delta, x))


def test_a_strength_for_each_channel():
    delta = AdaptMLP(4, d_bottle=3, scale=0.5, learn_scale='channel')
    assert delta.scale.shape == (4,) and (delta.scale == 0.5).all()
    tiny.randomised(delta)
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(delta(x).value(), delta.scale * delta.up(delta.down(x).relu()))


@pytest.mark.parametrize('act', ['GELUTanh', 'QuickGELU'])
def test_other_activations(act):
    delta, x = tiny.randomised(AdaptMLP(4, d_bottle=3, scale=1.0, act=act)), torch.randn(2, 5, 4)
    h = delta.down(x)
    h = h / (1 + torch.exp(-1.702 * h)) if act == 'QuickGELU' else torch.nn.functional.gelu(h, approximate='tanh')
    torch.testing.assert_close(delta(x).value(), delta.up(h))


def test_initial_values():
    torch.manual_seed(0)
    delta = AdaptMLP(64, d_bottle=32)
    for zero in (delta.up.weight, delta.up.bias, delta.down.bias):
        assert not zero.any()
    assert delta.down.weight.abs().max() <= 64**-0.5
    assert delta.down.weight.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.1)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(d_bottle=0), ['d_bottle', 'at least 1']),
        (dict(mode='serial'), ["'serial'", 'parallel', 'sequential']),
        (dict(source='stream'), ["'stream'", 'norm', 'residual']),
        (dict(scale='s'), ['scale', "'s'"]),
        (dict(dropout=1.5), ['dropout', '1.5']),
        (dict(dropout='a'), ['dropout', "'a'"]),
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with tiny.refused(*said):
        AdaptMLP(D, **options)


# In a block

WHERE = [('parallel', 'norm'), ('parallel', 'residual'), ('sequential', 'norm'), ('sequential', 'residual')]
ALL = 1 - 1e-7  # drops every path
EVERY = pytest.mark.parametrize('name', HOSTS)


def path_dropped(x: Tensor, p: float) -> Tensor:
    """Stochastic depth as the hosts draw it: one number for each sample."""
    return x / (1 - p) * (torch.rand(len(x), *[1] * (x.ndim - 1)) + 1 - p).floor() if p else x


def adapted_block(name: str, rate: float, **options) -> tuple[nn.Module, Tensor]:
    """The last block in training, which has the full drop-path rate and no shift, and a sample."""
    spec = dict(type='AdaptMLP', d_bottle=R, scale=0.5, **options)
    host = HOSTS[name]
    block = host.blocks(host.build({'adapter': spec}, depth=3, drop_path_rate=rate).train())[2]
    shape = {'swin3d': (12, 2, 4, 4, 16), 'swin2d': (8, 64, 16)}.get(name, (8, 7, 16))
    return block, torch.randn(shape, generator=torch.Generator().manual_seed(0))


def run(name: str, block: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)
    return block(x, *{'swin3d': [None], 'swin2d': [(8, 8)]}.get(name, []))


def block_by_hand(name: str, block: nn.Module, x: Tensor, p: float, mode: str, source: str) -> Tensor:
    """One block with an adapter; the attention is the block's, the MLP and all that joins them is ours."""
    torch.manual_seed(1)
    if name == 'swin3d':
        x = x + path_dropped(block.forward_part1(x, None), p)
    elif name == 'videomae':
        x = x + path_dropped(block.attn(block.norm1(x)), p)
    else:  # whose attention drops paths itself
        x = x + (block.attn(block.norm1(x), (8, 8)) if name == 'swin2d' else block.attn(block.ln1(x)))
    host, normed = HOSTS[name], (block.ln2 if name.startswith('vit') else block.norm2)(x)
    mlp, fc1, fc2 = (host.part(block, part) for part in ('mlp', 'fc1', 'fc2'))
    hidden = nn.functional.gelu(normed @ fc1.weight.T + fc1.bias)
    y = (hidden @ fc2.weight.T + fc2.bias) * dict(mlp.named_parameters()).get('gamma2.weight', 1)
    inside = name in ('swin3d', 'videomae') and (mode, source) != ('parallel', 'residual')
    y = y if inside else path_dropped(y, p)
    seen = y if mode == 'sequential' else x if source == 'residual' else normed
    added = 0.5 * bottleneck(mlp.deltas['adapter'], seen)
    return x + path_dropped(y + added, p) if inside else x + y + added


@pytest.mark.parametrize('rate', [0.0, 0.6, ALL])
@pytest.mark.parametrize(('mode', 'source'), WHERE)
@EVERY
def test_a_block_with_drop_path_equals_the_hand_written_one(name, mode, source, rate):
    block, x = adapted_block(name, rate, mode=mode, source=source)
    expected = block_by_hand(name, block, x, rate, mode, source)
    torch.testing.assert_close(run(name, block, x), expected, atol=1e-5, rtol=1e-5)


def test_two_residual_adapters_read_the_same_stream():
    host = HOSTS['vit']
    spec = dict(type='AdaptMLP', d_bottle=R, scale=0.5, source='residual')
    block = host.blocks(host.build({'one': spec, 'two': spec}))[1]
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    stream = x + block.attn(block.ln1(x))
    added = sum(0.5 * bottleneck(block.ffn.deltas[n], stream) for n in ('one', 'two'))
    mlp = block.ffn.layers(block.ln2(stream))
    torch.testing.assert_close(block(x), stream + mlp + added)
