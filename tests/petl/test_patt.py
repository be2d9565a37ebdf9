"""PATT against Eq. 9 and 10, written out."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import HOSTS
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import PATT

D, R = 8, 3
ACTS = {'Tanh': torch.tanh, 'ReLU': torch.relu, 'GELU': F.gelu}


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 7, D, generator=generator), torch.randn(5, 7, 3 * D, generator=generator)


@pytest.mark.parametrize('act', ACTS)
@pytest.mark.parametrize('bias', [True, 'down', False])
@pytest.mark.parametrize('slots', ['kv', 'qv', 'qk', 'qkv'])
def test_is_equations_9_and_10(slots, bias, act):
    patt = tiny.randomised(PATT(D, d_bottle=R, slots=slots, bias=bias, act=act, scale=0.5))
    x, y = sample()
    state = dict(patt.named_parameters())
    z = ACTS[act](x @ state['down.weight'].T + state.get('down.bias', torch.zeros(R)))
    added = z @ state['up.weight'].T + state.get('up.bias', torch.zeros(len(slots) * D))
    expected = y.clone()
    for position, slot in enumerate(slots):  # the slots in the order of their letters
        column = 'qkv'.index(slot) * D
        expected[..., column : column + D] += 0.5 * added[..., position * D : (position + 1) * D]
    ours = tiny.added(patt, x, y)
    torch.testing.assert_close(ours, expected)
    for slot, after, before in zip('qkv', ours.chunk(3, -1), sample()[1].chunk(3, -1), strict=True):
        assert torch.equal(after, before) == (slot not in slots)


def test_defaults_are_the_papers():
    patt = PATT(D, d_bottle=R)
    assert {n: tuple(p.shape) for n, p in patt.named_parameters()} == {
        'down.weight': (R, D), 'down.bias': (R,), 'up.weight': (2 * D, R), 'up.bias': (2 * D,),
    }  # fmt: skip
    x, y = sample()
    full = PATT(D, d_bottle=R, slots='kv', scale=0.8, learn_scale=False, act='Tanh', bias=True, init='default')
    full.load_state_dict(patt.state_dict())
    assert torch.equal(tiny.added(patt, x, y), tiny.added(full, x, y))
    assert not torch.equal(tiny.added(patt, x, y), y), 'as published, step 0 is perturbed'


def test_init_default_is_nn_linears():
    torch.manual_seed(0)
    patt = PATT(64, d_bottle=32)
    for tensor, fan_in in (
        (patt.down.weight, 64),
        (patt.down.bias, 64),
        (patt.up.weight, 32),
        (patt.up.bias, 32),
    ):
        assert tensor.abs().max() <= fan_in**-0.5
        assert tensor.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.25)  # of a uniform one


def test_init_zero_silences_up_alone():
    patt = PATT(D, d_bottle=R, init='zero')
    assert not patt.up.weight.any() and not patt.up.bias.any()
    assert patt.down.weight.any()
    x, y = sample()
    assert torch.equal(tiny.added(patt, x, y), y)
    tiny.added(patt, x, y).square().sum().backward()
    assert patt.up.weight.grad.any(), 'it can leave zero'


@pytest.mark.parametrize('init', ['default', 'zero'])
def test_reset_draws_again(init):
    torch.manual_seed(0)
    patt = tiny.randomised(PATT(D, d_bottle=R, init=init, scale=0.7, learn_scale=True))
    before = patt.down.weight.clone()
    patt.reset_parameters()
    assert not torch.equal(patt.down.weight, before)
    assert patt.scale.item() == pytest.approx(0.7)
    assert patt.up.weight.any() == (init == 'default')


def test_learned_scale_is_one_trained_number():
    x, y = sample()
    learned, fixed = PATT(D, d_bottle=R, scale=0.6, learn_scale=True), PATT(D, d_bottle=R, scale=0.6)
    learned.load_state_dict({**fixed.state_dict(), 'scale': torch.tensor(0.6)})
    torch.testing.assert_close(tiny.added(learned, x, y), tiny.added(fixed, x, y))
    tiny.added(learned, x, y).sum().backward()
    torch.testing.assert_close(learned.scale.grad, ((tiny.added(fixed, x, y) - y) / 0.6).sum(), rtol=1e-4, atol=1e-4)
    assert 'scale' not in fixed.state_dict()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(d_bottle=0), ['d_bottle', 'at least 1', '0']),
        (dict(d_bottle=-4), ['d_bottle', 'at least 1', '-4']),
        (dict(d_bottle=1.5), ['d_bottle', '1.5']),
        (dict(d_bottle='8'), ['d_bottle', "'8'"]),
        (dict(d_bottle=True), ['d_bottle']),
        (dict(d_bottle=R, slots='vk'), ["'vk'", 'q', 'k', 'v']),
        (dict(d_bottle=R, slots='kx'), ["'kx'", 'q', 'k', 'v']),
        (dict(d_bottle=R, slots='kk'), ["'kk'", 'q', 'k', 'v']),
        (dict(d_bottle=R, slots=''), ['slots']),
        (dict(d_bottle=R, slots=None), ['slots']),
        (dict(d_bottle=R, act='Swish'), ["'Swish'", 'Tanh', 'ReLU', 'GELU']),
        (dict(d_bottle=R, bias='up'), ["'up'", 'True', 'False', 'down']),
        (dict(d_bottle=R, init='ones'), ["'ones'", 'default', 'zero']),
        (dict(d_bottle=R, scale='big'), ['scale', "'big'"]),
        (dict(d_bottle=R, scale=None), ['scale', 'None']),
        (dict(d_bottle=R, source='table'), ["'table'", 'input', 'tokens']),
        (dict(d_bottle=R, source='tokens'), ['num_tokens', 'None']),
        (dict(d_bottle=R, source='tokens', num_tokens=0), ['num_tokens', '0']),
        (dict(d_bottle=R, num_tokens=4), ['num_tokens', 'source', '4']),
        (dict(d_bottle=R, mode='append'), ["'append'", 'add', 'concat']),
        (dict(d_bottle=R, mode='concat', slots='qv'), ['concat', "'qv'", "'kv'"]),
        (dict(d_bottle=R, mode='concat', slots='qkv'), ['concat', "'qkv'", "'kv'"]),
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with tiny.refused(*said):
        PATT(D, **options)


# Table 6's "Concat" and "No Z"


def additions(patt: nn.Module, x: Tensor, scale: float) -> tuple[Tensor, ...]:
    """s K_p and s V_p of (N, d), or of the table in its place."""
    w = dict(patt.named_parameters())
    z = torch.tanh(w.get('tokens', x) @ w['down.weight'].T + w['down.bias'])
    return (scale * (z @ w['up.weight'].T + w['up.bias'])).chunk(2, dim=-1)


def tuned(attention: nn.Module, mask: Tensor | None, mode: str) -> tiny.Tuned:
    """The additions put beside the keys ('concat') or onto them ('add')."""
    numbers = itertools.count()

    def tune(x: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        number, (k_p, v_p) = next(numbers), additions(attention.qkv.deltas['patt'], x, 0.5)
        if mode == 'add':
            return q, k + k_p, v + v_p, scores
        beside = torch.zeros(len(x), len(x)) if mask is None else mask[number % len(mask)]
        beside = beside.expand(len(scores), -1, -1)  # key j under the mask of token j, and no position bias
        return q, torch.cat([k_p, k]), torch.cat([v_p, v]), torch.cat([beside, scores], dim=-1)

    return tune


@pytest.mark.parametrize('source', ['input', 'tokens'])
@pytest.mark.parametrize('mode', ['add', 'concat'])
@pytest.mark.parametrize(('name', 'masked'), tiny.ATTENTIONS)
def test_in_attention(name, mode, source, masked):
    host = HOSTS[name]
    spec = dict(type='PATT', d_bottle=R, scale=0.5, mode=mode, source=source)
    spec |= dict(num_tokens=host.tokens) if source == 'tokens' else {}
    attention = host.part(host.blocks(host.build({'patt': spec}))[1], 'attn')
    x = torch.randn(4, host.tokens, 16, generator=torch.Generator().manual_seed(0))
    mask = tiny.shift_mask(2, host.tokens) if masked else None
    expected = tiny.attention_by_hand(attention, x, tuned(attention, mask, mode), mask)
    ours = attention(x, mask=mask) if masked else attention(x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_table_takes_the_inputs_place():
    """The same in every sample, whatever the sample is; drawn from a standard normal distribution."""
    torch.manual_seed(0)
    drawn = PATT(64, d_bottle=R, source='tokens', num_tokens=64).tokens
    assert drawn.std().item() == pytest.approx(1, rel=0.05)
    patt = tiny.randomised(PATT(D, d_bottle=R, source='tokens', num_tokens=7))
    x, y = sample()
    added = tiny.added(patt, x, y) - y
    torch.testing.assert_close(added, added[:1].expand_as(added))
    torch.testing.assert_close(added, tiny.added(patt, x * 3, y) - y)
    k, v = additions(patt, x[0], 0.8)
    torch.testing.assert_close(added[0, :, D:], torch.cat([k, v], -1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['add', 'concat'])
@pytest.mark.parametrize('name', HOSTS)
def test_a_window_of_another_size_is_said(name, mode):
    host = HOSTS[name]
    spec = dict(type='PATT', d_bottle=R, mode=mode, source='tokens', num_tokens=host.tokens + 1)
    model = host.build({'patt': spec})
    with tiny.refused('num_tokens', str(host.tokens), str(host.tokens + 1)):
        model.backbone(host.sample())


def test_the_papers_table():
    """ "No Z": 196 x d in each of Swin-B's blocks, whose widths sum to 12,032, on top of PATT-128."""
    spec = dict(type='PATT', d_bottle=128, source='tokens', num_tokens=196)
    count = build_model(tiny.swin_b(dict(patt=spec), []), meta=True).plan.count()
    assert count['trainable'] == 4_647_424 + 196 * 12_032
    concat = build_model(tiny.swin_b(dict(patt=dict(type='PATT', d_bottle=128, mode='concat')), []), meta=True)
    assert concat.plan.count()['trainable'] == 4_647_424
