"""AdaptMLP against Eq. 6 and 7, and where it sits in a block."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import HOSTS
from torch import Tensor, nn

from vpetl_mm import UserError
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
    torch.testing.assert_close(delta(x, y), y + 0.3 * bottleneck(delta, x))


def test_sequential_reads_the_branch():
    delta = tiny.randomised(AdaptMLP(D, d_bottle=R, scale=0.3, mode='sequential'))
    x, y = sample()
    torch.testing.assert_close(delta(x, y), y + 0.3 * bottleneck(delta, y))


def test_defaults_are_the_papers():
    delta = AdaptMLP(D)
    shapes = {n: tuple(p.shape) for n, p in delta.named_parameters()}
    assert shapes == {'down.weight': (64, D), 'down.bias': (64,), 'up.weight': (D, 64), 'up.bias': (D,)}
    tiny.randomised(delta)
    x, y = sample()
    torch.testing.assert_close(delta(x, y), y + 0.1 * bottleneck(delta, x))


def test_initial_values():
    torch.manual_seed(0)
    delta = AdaptMLP(64, d_bottle=32)
    for zero in (delta.up.weight, delta.up.bias, delta.down.bias):
        assert not zero.any()
    assert delta.down.weight.abs().max() <= 64**-0.5
    assert delta.down.weight.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.1)


def test_dropout_acts_in_training_alone():
    x, y = sample()
    delta = tiny.randomised(AdaptMLP(D, d_bottle=R, dropout=0.5))
    delta.eval()
    torch.testing.assert_close(delta(x, y), y + 0.1 * bottleneck(delta, x))
    delta.train()
    assert not torch.equal(delta(x, y), delta(x, y))


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
    with pytest.raises(UserError) as error:
        AdaptMLP(D, **options)
    assert all(word in str(error.value) for word in said)


# In a block


def drop_path(x: Tensor, p: float) -> Tensor:
    """Stochastic depth as mmcv draws it: one number for each sample."""
    keep = (torch.rand((x.shape[0], 1, 1, 1, 1)) + 1 - p).floor()
    return x / (1 - p) * keep


def block_by_hand(block: nn.Module, x: Tensor, p: float, mode: str, source: str) -> Tensor:
    """One Swin block with an adapter; attention and MLP are the block's, all that joins them is ours."""
    x = x + drop_path(block.forward_part1(x, None), p)
    delta, mlp = block.mlp.deltas.adapter, block.mlp
    seen = block.norm2(x)
    y = mlp.fc2(mlp.act(mlp.fc1(seen)))
    if mode == 'sequential':
        return x + drop_path(y + 0.5 * bottleneck(delta, y), p)
    if source == 'norm':
        return x + drop_path(y + 0.5 * bottleneck(delta, seen), p)
    return x + drop_path(y, p) + 0.5 * bottleneck(delta, x)


WHERE = [('parallel', 'norm'), ('parallel', 'residual'), ('sequential', 'norm'), ('sequential', 'residual')]


def adapted_block(mode: str, source: str, rate: float, **options) -> nn.Module:
    """The last block of a model: the one with the full drop-path rate."""
    spec = dict(type='AdaptMLP', d_bottle=R, scale=0.5, mode=mode, source=source)
    model = tiny.tiny({'adapter': spec}, depths=(3,), drop_path_rate=rate, **options)
    model.train()
    return model.backbone.layers[0].blocks[2]  # unshifted


@pytest.mark.parametrize(('mode', 'source'), WHERE)
@pytest.mark.parametrize('rate', [0.0, 0.6])
def test_block_with_drop_path_equals_the_hand_written_one(mode, source, rate):
    block = adapted_block(mode, source, rate)
    x = torch.randn(12, 2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = block(x, None)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, block_by_hand(block, x, rate, mode, source), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(('mode', 'source'), WHERE)
def test_only_the_residual_source_survives_drop_path(mode, source):
    block = adapted_block(mode, source, 1 - 1e-7)  # drops every branch
    x = torch.randn(4, 2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    outside = (mode, source) == ('parallel', 'residual')
    expected = x + 0.5 * bottleneck(block.mlp.deltas.adapter, x) if outside else x
    torch.testing.assert_close(block(x, None), expected)


@pytest.mark.parametrize(('mode', 'source'), WHERE)
def test_activation_checkpointing_changes_nothing(mode, source):
    grads = []
    for with_cp in (False, True):
        block = adapted_block(mode, source, 0.5, with_cp=with_cp)
        x = torch.randn(6, 2, 4, 4, 16, generator=torch.Generator().manual_seed(0))  # needs no gradient
        torch.manual_seed(2)
        block(x, None).square().sum().backward()
        grads.append({n: p.grad for n, p in block.mlp.deltas.named_parameters()})
    assert all(g is not None and g.any() for g in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


@pytest.mark.parametrize('source', ['norm', 'residual'])
def test_parameters_live_on_the_mlp_whatever_the_source(source):
    model = tiny.tiny({'adapter': dict(type='AdaptMLP', source=source)})
    names = {n for n, _ in model.backbone.named_parameters() if 'deltas' in n}
    assert names == {
        f'layers.0.blocks.{b}.mlp.deltas.adapter.{n}'
        for b in (0, 1)
        for n in ('down.weight', 'down.bias', 'up.weight', 'up.bias')
    }


# In the other hosts' blocks


def path_dropped(x: Tensor, p: float) -> Tensor:
    """Stochastic depth of (B, N, d)."""
    keep = (torch.rand((x.shape[0], 1, 1)) + 1 - p).floor()
    return x / (1 - p) * keep


def mlp_by_hand(mlp: nn.Module, seen: Tensor) -> Tensor:
    w = dict(mlp.named_parameters())
    hidden = nn.functional.gelu(seen @ w['layers.0.0.weight'].T + w['layers.0.0.bias'])
    return (hidden @ w['layers.1.weight'].T + w['layers.1.bias']) * w.get('gamma2.weight', 1)


def other_block(name: str, rate: float, **options) -> tuple[nn.Module, nn.Module, Tensor]:
    """The last block in training, its MLP, and a sample of (B, N, d)."""
    host, spec = HOSTS[name], dict(type='AdaptMLP', d_bottle=R, scale=0.5, **options)
    model = host.build({'adapter': spec}, depth=3, drop_path_rate=rate).train()
    block = host.blocks(model)[2]
    n = 64 if name == 'swin2d' else 7
    return block, host.part(block, 'mlp'), torch.randn(8, n, 16, generator=torch.Generator().manual_seed(0))


def attended(name: str, block: nn.Module, x: Tensor, rate: float) -> Tensor:
    """The stream behind the attention, which is the block's own; VideoMAE drops paths outside of it."""
    if name == 'videomae':
        return x + path_dropped(block.attn(block.norm1(x)), rate)
    if name == 'swin2d':
        return x + block.attn(block.norm1(x), (8, 8))
    return x + block.attn(block.ln1(x))


OTHERS = ['videomae', 'vit', 'vit_layerscale', 'swin2d']


def run(name: str, block: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)
    return block(x, (8, 8)) if name == 'swin2d' else block(x)


@pytest.mark.parametrize('rate', [0.0, 0.6])
@pytest.mark.parametrize('name', OTHERS)
def test_residual_is_outside_drop_path_on_the_other_hosts(name, rate):
    block, mlp, x = other_block(name, rate, source='residual')
    ours = run(name, block, x)
    torch.manual_seed(1)
    x = attended(name, block, x, rate)
    norm = block.norm2 if hasattr(block, 'norm2') else block.ln2
    y = mlp_by_hand(mlp, norm(x))
    expected = x + (path_dropped(y, rate) if rate else y) + 0.5 * bottleneck(mlp.deltas.adapter, x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['parallel', 'sequential'])
@pytest.mark.parametrize('name', OTHERS)
def test_norm_and_sequential_on_the_other_hosts(name, mode):
    block, mlp, x = other_block(name, 0.0, mode=mode)
    ours = run(name, block, x)
    x = attended(name, block, x, 0.0)
    seen = (block.norm2 if hasattr(block, 'norm2') else block.ln2)(x)
    y = mlp_by_hand(mlp, seen)
    expected = x + y + 0.5 * bottleneck(mlp.deltas.adapter, y if mode == 'sequential' else seen)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', OTHERS)
def test_only_the_residual_source_survives_a_dropped_mlp(name):
    """With every path dropped, a block is x, and what the adapter makes of it."""
    block, mlp, x = other_block(name, 1 - 1e-7, source='residual')
    expected = x + 0.5 * bottleneck(mlp.deltas.adapter, x)
    torch.testing.assert_close(run(name, block, x), expected)


@pytest.mark.parametrize('source', ['norm', 'residual'])
@pytest.mark.parametrize('name', OTHERS)
def test_parameters_live_on_the_mlp_of_every_host(name, source):
    host = HOSTS[name]
    model = host.build({'adapter': dict(type='AdaptMLP', source=source)})
    names = {n for n, _ in model.named_parameters() if 'deltas' in n}
    ends = ('down.weight', 'down.bias', 'up.weight', 'up.bias')
    assert names == {f'{host.block.format(b)}.{host.below["mlp"]}.deltas.adapter.{e}' for b in (0, 1) for e in ends}


def test_two_residual_adapters_read_the_same_stream():
    host = HOSTS['vit']
    spec = dict(type='AdaptMLP', d_bottle=R, scale=0.5, source='residual')
    block = host.blocks(host.build({'one': spec, 'two': spec}))[1]
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    stream = x + block.attn(block.ln1(x))
    added = sum(0.5 * bottleneck(block.ffn.deltas[n], stream) for n in ('one', 'two'))
    torch.testing.assert_close(block(x), stream + mlp_by_hand(block.ffn, block.ln2(stream)) + added)
