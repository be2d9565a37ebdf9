"""PATT against Eq. 9 and 10, written out."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F

from vpetl_mm import UserError
from vpetl_mm.petl import PATT

D, R = 8, 3
ACTS = {'Tanh': torch.tanh, 'ReLU': torch.relu, 'GELU': F.gelu}


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
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
    torch.testing.assert_close(patt(x, y), expected)


@pytest.mark.parametrize('slots', ['kv', 'qv', 'qk', 'qkv'])
def test_other_slots_are_untouched_and_the_input_kept(slots):
    patt = tiny.randomised(PATT(D, d_bottle=R, slots=slots))
    x, y = sample()
    kept = y.clone()
    out = patt(x, y)
    assert torch.equal(y, kept)
    for index, slot in enumerate('qkv'):
        same = torch.equal(out[..., index * D : (index + 1) * D], y[..., index * D : (index + 1) * D])
        assert same == (slot not in slots)


def test_defaults_are_the_papers():
    patt = PATT(D, d_bottle=R)
    assert {n: tuple(p.shape) for n, p in patt.named_parameters()} == {
        'down.weight': (R, D),
        'down.bias': (R,),
        'up.weight': (2 * D, R),
        'up.bias': (2 * D,),
    }
    x, y = sample()
    full = PATT(D, d_bottle=R, slots='kv', scale=0.8, learn_scale=False, act='Tanh', bias=True, init='default')
    full.load_state_dict(patt.state_dict())
    assert torch.equal(patt(x, y), full(x, y))
    assert not torch.equal(patt(x, y), y), 'as published, step 0 is perturbed'


@pytest.mark.parametrize('slots', ['kv', 'qkv'])
@pytest.mark.parametrize('r', [1, 32])
def test_parameter_count(slots, r):
    n = len(slots)
    count = sum(p.numel() for p in PATT(D, d_bottle=r, slots=slots).parameters())
    assert count == (n + 1) * D * r + r + n * D


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
    assert torch.equal(patt(x, y), y)
    patt(x, y).square().sum().backward()
    assert patt.up.weight.grad.any(), 'it can leave zero'


@pytest.mark.parametrize('init', ['default', 'zero'])
def test_reset_draws_anew(init):
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
    torch.testing.assert_close(learned(x, y), fixed(x, y))
    learned(x, y).sum().backward()
    torch.testing.assert_close(learned.scale.grad, ((fixed(x, y) - y) / 0.6).sum(), rtol=1e-4, atol=1e-4)
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
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with pytest.raises(UserError) as error:
        PATT(D, **options)
    assert all(word in str(error.value) for word in said)
