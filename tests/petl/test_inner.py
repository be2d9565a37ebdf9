"""q, k and v of one layer, of three, or of a parameter, seen as one projection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vpetl_mm.petl.inner import Inner, Projection, inside

D_IN, D = 5, 4
THREE = Inner(('q.weight', 'k.weight', 'v.weight'))


def of_layers(*biases: bool) -> nn.Module:
    attention = nn.Module()
    for name, bias in zip('qkv', biases, strict=True):
        setattr(attention, name, nn.Linear(D_IN, D, bias))
    return attention


def of_parameters() -> nn.Module:
    """One layer without a bias, and the biases of q and v beside it."""
    attention = nn.Module()
    attention.qkv = nn.Linear(D_IN, 3 * D, False)
    attention.q_bias, attention.v_bias = (nn.Parameter(torch.randn(D)) for _ in range(2))
    attention.register_buffer('k_bias', torch.zeros(D))
    return attention


def test_three_layers():
    attention = of_layers(True, False, True)
    projection = Projection(attention, THREE)
    assert (projection.in_features, projection.out_features) == (D_IN, 3 * D)
    assert torch.equal(projection.weight, torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]))
    assert torch.equal(projection.bias, torch.cat([attention.q.bias, torch.zeros(D), attention.v.bias]))
    rows = [('q.weight', 'q.bias', 0, D), ('k.weight', '', D, D), ('v.weight', 'v.bias', 2 * D, D)]
    assert list(projection.parameters()) == rows
    assert Projection(of_layers(False, False, False), THREE).bias is None


def test_biases_beside_the_layer():
    attention = of_parameters()
    projection = Projection(attention, Inner(biases=('q_bias', '', 'v_bias')))
    assert projection.weight is attention.qkv.weight
    assert torch.equal(projection.bias, torch.cat([attention.q_bias, torch.zeros(D), attention.v_bias]))
    assert [projection.is_trained(n) for n in ('q_bias', 'k_bias', 'v_bias')] == [True, False, True]


@pytest.mark.parametrize('bias', [True, False])
def test_a_parameter_without_a_layer(bias):
    attention = nn.MultiheadAttention(D, 2, bias=bias)
    projection = Projection(attention, Inner(('in_proj_weight',)))
    assert projection.weight is attention.in_proj_weight
    assert projection.bias is attention.in_proj_bias
    assert list(projection.parameters()) == [('in_proj_weight', 'in_proj_bias' if bias else '', 0, 3 * D)]


def test_what_is_not_there_is_none():
    assert inside(of_parameters(), 'qkv.bias') is None
    assert inside(of_parameters(), 'q.weight') is None
