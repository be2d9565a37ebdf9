"""LinearAdapter against its two formulas."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F

from vpetl_mm.petl import LinearAdapter

D_IN, D_OUT, R = 6, 10, 3
ACTS = {'GELU': F.gelu, 'ReLU': F.relu}


def at(place: str, **options) -> LinearAdapter:
    return tiny.randomised(LinearAdapter.at_site(tiny.site(place, D_IN, D_OUT), d_bottle=R, **options))


def weights(delta: LinearAdapter, slot: str = 'out') -> list[torch.Tensor]:
    """Of one slot's bottleneck: down's weight and bias, up's weight and bias."""
    named = dict(delta.named_parameters())
    return [named[f'{part}.{slot}.{kind}'] for part in ('down', 'up') for kind in ('weight', 'bias')]


@pytest.mark.parametrize('act', ACTS)
@pytest.mark.parametrize('mode', ['sequential', 'parallel'])
@pytest.mark.parametrize('place', ['proj', 'fc1', 'fc2'])
def test_on_a_plain_layer(place, mode, act):
    delta = at(place, mode=mode, act=act, scale=0.7)
    x, y = torch.randn(2, 3, D_IN), torch.randn(2, 3, D_OUT)
    down, down_bias, up, up_bias = weights(delta)
    seen = y if mode == 'sequential' else x
    expected = y + 0.7 * (ACTS[act](seen @ down.T + down_bias) @ up.T + up_bias)
    torch.testing.assert_close(tiny.added(delta, x, y), expected)


@pytest.mark.parametrize('mode', ['sequential', 'parallel'])
@pytest.mark.parametrize('slots', ['q', 'k', 'v', 'qk', 'qv', 'kv', 'qkv'])
def test_on_a_fused_projection_each_slot_has_its_own(slots, mode):
    delta = at('qkv', slots=slots, mode=mode)
    assert len(list(delta.parameters())) == 4 * len(slots)
    x, y = torch.randn(2, 3, D_IN), torch.randn(2, 3, 3 * D_OUT)
    expected = y.clone()
    for slot in slots:
        columns = slice('qkv'.index(slot) * D_OUT, ('qkv'.index(slot) + 1) * D_OUT)
        down, down_bias, up, up_bias = weights(delta, slot)
        seen = y[..., columns] if mode == 'sequential' else x
        expected[..., columns] += F.gelu(seen @ down.T + down_bias) @ up.T + up_bias
    torch.testing.assert_close(tiny.added(delta, x, y), expected)


def test_parameters_are_what_facts_md_counts():
    for width in (D_OUT, 768):
        delta = LinearAdapter.at_site(tiny.site('fc1', width, width))
        assert sum(p.numel() for p in delta.parameters()) == 2 * width * 8 + 8 + width
    assert sum(p.numel() for p in at('qkv').parameters()) == 3 * (2 * D_OUT * R + R + D_OUT)
    assert sum(p.numel() for p in at('fc1', mode='parallel').parameters()) == D_IN * R + R + D_OUT * R + D_OUT


def test_initial_values():
    torch.manual_seed(0)
    delta = LinearAdapter.at_site(tiny.site('qkv', 64, 64), d_bottle=32)
    drawn = []
    for slot in 'qkv':
        down, *rest = weights(delta, slot)
        assert not any(p.any() for p in rest)
        assert down.abs().max() <= 64**-0.5 and down.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.1)
        drawn.append(down)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize('place', ['qkv', 'fc1'])
def test_starts_at_zero_and_can_leave_it(place):
    delta = at(place)
    delta.reset_parameters()
    x, y = torch.randn(3, D_IN), torch.randn(3, 3 * D_OUT if place == 'qkv' else D_OUT)
    assert torch.equal(tiny.added(delta, x, y), y)
    tiny.added(delta, x, y).square().sum().backward()
    assert all(p.grad.any() for n, p in delta.named_parameters() if n.startswith('up'))


@pytest.mark.parametrize('mode', ['sequential', 'parallel'])
def test_dropout_is_on_the_bottlenecks_input_and_in_training_alone(mode):
    delta = at('fc1', mode=mode, dropout=0.5)
    x, y = torch.ones(400, D_IN), torch.ones(400, D_OUT)
    assert torch.equal(tiny.added(delta.eval(), x, y), tiny.added(delta.eval(), x, y))
    down, down_bias, up, up_bias = weights(delta)
    torch.manual_seed(0)
    trained = tiny.added(delta.train(), x, y)
    seen = y if mode == 'sequential' else x
    torch.manual_seed(0)
    expected = y + F.gelu(F.dropout(seen, 0.5) @ down.T + down_bias) @ up.T + up_bias
    torch.testing.assert_close(trained, expected)
    assert trained.std(0).min() > 0, 'each token drops others'


def test_inner_dropout_is_between_down_and_up():
    delta, x, y = at('fc1', inner_dropout=0.5), torch.ones(400, D_IN), torch.ones(400, D_OUT)
    down, down_bias, up, up_bias = weights(delta)
    torch.manual_seed(0)
    trained = tiny.added(delta.train(), x, y)
    torch.manual_seed(0)
    torch.testing.assert_close(trained, y + F.dropout(F.gelu(y @ down.T + down_bias), 0.5) @ up.T + up_bias)


@pytest.mark.parametrize(('learn_scale', 'shape'), [(True, ()), ('channel', (2 * D_OUT,))])
def test_a_trained_strength_starts_at_scale_and_each_slot_has_its_own(learn_scale, shape):
    delta = LinearAdapter.at_site(tiny.site('qkv', D_IN, D_OUT), slots='kv', scale=0.7, learn_scale=learn_scale)
    assert delta.scale.shape == shape and (delta.scale == 0.7).all()
    tiny.randomised(delta)
    x, y = torch.randn(2, 3, D_IN), torch.randn(2, 3, 3 * D_OUT)
    expected = y.clone()
    for i, slot in enumerate('kv', 1):
        columns = slice(i * D_OUT, (i + 1) * D_OUT)
        down, down_bias, up, up_bias = weights(delta, slot)
        scale = delta.scale if learn_scale is True else delta.scale[(i - 1) * D_OUT : i * D_OUT]
        expected[..., columns] += scale * (F.gelu(y[..., columns] @ down.T + down_bias) @ up.T + up_bias)
    torch.testing.assert_close(tiny.added(delta, x, y), expected)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(d_bottle=0), ['d_bottle', 'at least 1', '0']),
        (dict(mode='behind'), ["'behind'", 'sequential', 'parallel']),
        (dict(act='Tanh'), ["'Tanh'", 'GELU', 'ReLU']),
        (dict(dropout=1.0), ['dropout', '1.0']),
        (dict(dropout=-0.1), ['dropout', '-0.1']),
        (dict(slots='vq'), ["'vq'", 'q', 'k', 'v']),
        (dict(scale='x'), ['scale', "'x'"]),
        (dict(inner_dropout=1), ['inner_dropout', '1']),
        (dict(learn_scale='slot'), ['learn_scale', "'channel'"]),
        (dict(rank=4), ["'rank'", 'd_bottle']),
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with tiny.refused(*said):
        LinearAdapter.at_site(tiny.site('qkv', 6, 6), **options)
