"""Prefix-tuning against Eq. 5, written out for windows and for plain ViTs."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import HOSTS
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import Prefix

D, N, R = 16, 3, 4
SPEC = dict(type='Prefix', num_tokens=N, d_middle=R)


def keys_and_values(delta: nn.Module) -> tuple[Tensor, Tensor]:
    """P_k and P_v from the table and the two linear layers with a tanh between."""
    w = dict(delta.named_parameters())
    middle = torch.tanh(w['tokens'] @ w['down.weight'].T + w['down.bias'])
    both = middle @ w['up.weight'].T + w['up.bias']
    return both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]


def tuned(delta: nn.Module) -> tiny.Tuned:
    """The prefix in front, seen by every token of every window, without a bias."""
    p_k, p_v = keys_and_values(delta)

    def tune(x: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        unbiased = torch.zeros(*scores.shape[:2], N)
        return q, torch.cat([p_k, k]), torch.cat([p_v, v]), torch.cat([unbiased, scores], dim=-1)

    return tune


@pytest.mark.parametrize(('name', 'masked'), tiny.ATTENTIONS)
def test_is_equation_5(name, masked):
    host = HOSTS[name]
    attention = host.part(host.blocks(host.build({'prefix': SPEC}))[1], 'attn')
    mask = tiny.shift_mask(2, host.tokens) if masked else None
    x = torch.randn(4, host.tokens, D, generator=torch.Generator().manual_seed(0))
    expected = tiny.attention_by_hand(attention, x, tuned(attention.deltas['prefix']), mask)
    with torch.no_grad():
        for _ in range(2):  # the second time with what was kept
            ours = attention(x, mask=mask) if masked else attention(x)
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_with_patt_on_the_same_projection():
    """Eq. 5 and Eq. 10 at once: the prefix is no input of PATT."""
    host = HOSTS['vit']
    deltas = {'prefix': SPEC, 'patt': dict(type='PATT', d_bottle=2, scale=0.5)}
    attention = host.part(host.blocks(host.build(deltas))[0], 'attn')
    w = dict(attention.qkv.deltas['patt'].named_parameters())
    prefixed = tuned(attention.deltas['prefix'])

    def tune(x: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        added = torch.tanh(x @ w['down.weight'].T + w['down.bias']) @ w['up.weight'].T + w['up.bias']
        return prefixed(x, q, k + 0.5 * added[:, :D], v + 0.5 * added[:, D:], scores)

    x = torch.randn(1, 6, D, generator=torch.Generator().manual_seed(0))
    expected = tiny.attention_by_hand(attention, x, tune)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_it_is_no_function_of_the_input():
    delta = tiny.randomised(Prefix(D, num_tokens=N, d_middle=R))
    one, other = (delta.extra_tokens(torch.randn(2, n, D), None) for n in (4, 5))
    assert torch.equal(one.k, other.k) and torch.equal(one.v, other.v)
    for ours, by_hand in zip((one.k, one.v), keys_and_values(delta), strict=True):
        torch.testing.assert_close(ours, by_hand)


def test_defaults_and_count():
    delta = Prefix(D)
    assert {n: tuple(p.shape) for n, p in delta.named_parameters()} == {
        'tokens': (16, D), 'down.weight': (128, D), 'down.bias': (128,),
        'up.weight': (2 * D, 128), 'up.bias': (2 * D,),
    }  # fmt: skip
    assert sum(p.numel() for p in delta.parameters()) == 16 * D + 3 * D * 128 + 128 + 2 * D


def test_initial_values():
    torch.manual_seed(0)
    delta = Prefix(64, num_tokens=64, d_middle=32)
    assert delta.tokens.std().item() == pytest.approx(1, rel=0.05)
    for tensor, fan_in in ((delta.down.weight, 64), (delta.up.weight, 32), (delta.up.bias, 32)):
        assert tensor.abs().max() <= fan_in**-0.5
        assert tensor.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.25)
    before = {n: p.clone() for n, p in delta.named_parameters()}
    delta.reset_parameters()
    assert not any(torch.equal(p, before[n]) for n, p in delta.named_parameters())


def test_without_a_middle_both_are_tables():
    """As in MAM's prefix_nomlp: no linear layer, and small numbers to begin with."""
    delta = Prefix(64, num_tokens=64, d_middle=None)
    assert {n: tuple(p.shape) for n, p in delta.named_parameters()} == {'tokens': (2, 64, 64)}
    assert delta.tokens.std().item() == pytest.approx(0.02, rel=0.05)
    extra = delta.extra_tokens(None, None)
    assert torch.equal(extra.k, delta.tokens[0]) and torch.equal(extra.v, delta.tokens[1]) and not extra.masked
    host = HOSTS['videomae']
    assert host.build({'prefix': dict(SPEC, d_middle=None)}).plan.count()['by']['prefix'] == 2 * 2 * N * D


def test_the_papers_count():
    """Two linear layers as PATT-128's, and 16 tokens in each of Swin-B's blocks, whose widths sum to 12,032."""
    count = build_model(tiny.swin_b(dict(prefix=dict(type='Prefix')), []), meta=True).plan.count()
    assert count['trainable'] == count['by']['prefix'] == 4_647_424 + 16 * 12_032


@pytest.mark.parametrize('options', [dict(num_tokens=0), dict(num_tokens=1.5), dict(d_middle=0), dict(d_middle='8')])
def test_wrong_values_are_said(options):
    with tiny.refused(next(iter(options))):
        Prefix(D, **options)


@pytest.mark.parametrize('at', ['qkv', 'mlp', 'block'])
def test_it_sits_on_attention_alone(at):
    with tiny.refused(repr(at), 'attn'):
        build_model(HOSTS['vit'].config({'prefix': dict(SPEC, at=at)}))
