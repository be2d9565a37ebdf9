"""LoRA against y + (alpha / rank) B A x."""

from __future__ import annotations

import pytest
import tiny
import torch

from vpetl_mm.petl import LoRA

D_IN, D_OUT = 6, 10


def at(place: str, **options) -> LoRA:
    site = tiny.site(place, D_IN, D_IN if place == 'qkv' else D_OUT)
    return tiny.randomised(LoRA.at_site(site, **options))


def factors(delta: LoRA) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The As and the Bs, in their order, found by name."""
    parameters = dict(delta.named_parameters())
    return (
        [p for n, p in parameters.items() if n.startswith('A')],
        [p for n, p in parameters.items() if n.startswith('B')],
    )


@pytest.mark.parametrize(('alpha', 'strength'), [(None, 1.0), (4, 1.0), (8, 2.0), (1, 0.25)])
@pytest.mark.parametrize('place', ['proj', 'fc1', 'fc2'])
def test_on_a_plain_layer(place, alpha, strength):
    delta = at(place, rank=4, alpha=alpha)
    (a,), (b,) = factors(delta)
    assert (a.shape, b.shape) == ((4, D_IN), (D_OUT, 4))
    x, y = torch.randn(3, D_IN), torch.randn(3, D_OUT)
    torch.testing.assert_close(tiny.added(delta, x, y), y + strength * x @ a.T @ b.T)


@pytest.mark.parametrize('slots', ['q', 'k', 'v', 'qk', 'qv', 'kv', 'qkv'])
def test_on_a_fused_projection_each_slot_has_its_own(slots):
    delta = at('qkv', rank=2, slots=slots)
    a, b = factors(delta)
    assert len(a) == len(b) == len(slots)
    assert len(list(delta.parameters())) == 2 * len(slots), 'no biases'
    x, y = torch.randn(3, D_IN), torch.randn(3, 3 * D_IN)
    expected = y.clone()
    for slot, a_of, b_of in zip(slots, a, b, strict=True):
        column = 'qkv'.index(slot) * D_IN
        expected[:, column : column + D_IN] += x @ a_of.T @ b_of.T
    torch.testing.assert_close(tiny.added(delta, x, y), expected)


def test_defaults():
    a, b = factors(at('qkv'))
    assert [tuple(p.shape) for p in a + b] == [(16, D_IN)] * 2 + [(D_IN, 16)] * 2  # q and v, rank 16


def test_slots_are_ignored_on_a_plain_layer():
    assert len(list(at('proj', slots='qkv').parameters())) == 2


def test_initial_values():
    torch.manual_seed(0)
    delta = LoRA.at_site(tiny.site('qkv', 64, 64), rank=32)
    a, b = factors(delta)
    assert not any(p.any() for p in b)
    for p in a:
        assert p.abs().max() <= 64**-0.5
        assert p.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.1)
    assert not torch.equal(*a)


def test_can_leave_zero():
    delta = at('proj', rank=2)
    delta.reset_parameters()
    x, y = torch.randn(3, D_IN), torch.randn(3, D_OUT)
    assert torch.equal(tiny.added(delta, x, y), y)
    tiny.added(delta, x, y).square().sum().backward()
    _, (b,) = factors(delta)
    assert b.grad.any()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(rank=0), ['rank', 'at least 1', '0']),
        (dict(rank=2.0), ['rank', '2.0']),
        (dict(slots='vq'), ["'vq'", 'q', 'k', 'v']),
        (dict(slots='qx'), ["'qx'", 'q', 'k', 'v']),
        (dict(alpha='x'), ['alpha', "'x'"]),
        (dict(r=4), ["'r'", 'rank', 'alpha', 'slots']),
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with tiny.refused(*said):
        at('qkv', **options)
