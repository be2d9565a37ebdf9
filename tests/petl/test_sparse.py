"""Sparse against a dense matrix of the same entries."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from entries import draw, host_of, some, sparse_of
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import Sparse
from vpetl_mm.petl.deltas import deltas_of
from vpetl_mm.petl.host import attach, detach
from vpetl_mm.petl.merging import _merge

D_IN, D_OUT, N = 7, 5, 11
SHAPES = pytest.mark.parametrize('shape', [(D_OUT, D_IN), (D_IN,)], ids=['linear', 'norm'])
COUNTS = pytest.mark.parametrize(('n', 'm'), [(4, 0), (0, 3), (4, 3), (1, 1)])


@SHAPES
@COUNTS
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no_bias'])
def test_the_weights_are_w_plus_s(shape, n, m, bias):
    sparse, weight, change = sparse_of(shape, n, m)
    w, b = draw(*shape), draw(shape[0]) if bias else None
    given = w.clone(), None if b is None else b.clone()
    ours = sparse.update(w, b)
    assert torch.equal(ours[0], w + weight)
    if bias or m:
        assert torch.equal(ours[1], change if b is None else b + change)
    else:
        assert ours[1] is None
    assert torch.equal(w, given[0]) and (b is None or torch.equal(b, given[1])), 'the given ones are left alone'


def run(host: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The host's function of x with other weights."""
    if isinstance(host, nn.Linear):
        return F.linear(x, weight, bias)
    return F.layer_norm(x, host.normalized_shape, weight, bias, host.eps)


@SHAPES
@COUNTS
@pytest.mark.parametrize('leading', [(4,), (2, 3, 2)], ids=str)
def test_a_host_and_its_gradients_are_those_of_the_dense_weights(shape, n, m, leading):
    host = host_of(shape)
    sparse, *dense = sparse_of(shape, n, m)
    dense = [(a + b).requires_grad_() for a, b in zip((host.weight, host.bias), dense, strict=True)]
    attach(host, 'sparse', sparse)
    x = draw(*leading, D_IN).requires_grad_()
    y, expected = host(x), run(host, x, *dense)
    torch.testing.assert_close(y, expected)
    other = draw(*y.shape)
    to_x, to_weight, to_bias = torch.autograd.grad((expected * other).sum(), [x, *dense])
    wanted = dict(weight_value=to_weight, bias_value=to_bias)
    ours = torch.autograd.grad((y * other).sum(), [x, *sparse.parameters()])
    torch.testing.assert_close(ours[0], to_x)
    for (name, _), grad in zip(sparse.named_parameters(), ours[1:], strict=True):
        index = sparse.get_buffer(name.replace('value', 'index')).long()
        torch.testing.assert_close(grad, wanted[name].flatten()[index])


def test_starts_as_nothing_bit_for_bit():
    sparse, w, b = Sparse(some(35, N), some(D_OUT, 2)), torch.randn(D_OUT, D_IN), torch.randn(D_OUT)
    assert all(map(torch.equal, sparse.update(w, b), (w, b)))
    for value in sparse.parameters():
        nn.init.ones_(value)
    assert not any(map(torch.equal, sparse.update(w, b), (w, b)))
    sparse.reset_parameters()
    assert all(map(torch.equal, sparse.update(w, b), (w, b)))


def test_is_saved_as_index_and_value_alone():
    sparse, weight, bias = sparse_of((D_OUT, D_IN), N, 3)
    state = sparse.state_dict()
    assert {k: (v.numel(), v.is_floating_point()) for k, v in state.items()} == {
        'weight_index': (N, False), 'weight_value': (N, True), 'bias_index': (3, False), 'bias_value': (3, True),
    }  # fmt: skip
    assert all(p.ndim == 1 for p in sparse.parameters())
    assert [n for n, _ in sparse_of((D_OUT, D_IN), N, 0)[0].named_parameters()] == ['weight_value']
    other = Sparse(torch.arange(N), torch.arange(3)).double()
    other.load_state_dict(state)
    for twin in (other, copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse))):
        assert all(map(torch.equal, twin.update(0 * weight, 0 * bias), (weight, bias)))


@SHAPES
def test_merging(shape):
    host, x = host_of(shape), draw(2, 3, D_IN)
    sparse, weight, bias = sparse_of(shape, 4, 3)
    plain = copy.deepcopy(host)
    attach(host, 'sparse', sparse)
    attach(plain, 'sparse', sparse)
    _merge(plain, deltas_of(plain), [(plain.weight, plain.bias, 0, len(plain.weight))])
    detach(plain)
    torch.testing.assert_close(plain(x), host(x))
    assert torch.equal(plain.weight, host.weight + weight) and torch.equal(plain.bias, host.bias + bias)


def test_merging_into_biases_of_parts_of_the_output():
    """As VideoMAE's: q from 0, v from 10, and nothing between."""
    sparse = Sparse(None, torch.tensor([0, 3, 11, 14])).double()
    with torch.no_grad():
        sparse.bias_value.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    q, v = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    host = host_of((15, 4), bias=False)
    attach(host, 'sparse', sparse)
    _merge(host, deltas_of(host), [(host.weight, None, 0, 15), (None, q, 0, 5), (None, v, 10, 5)])
    assert q.tolist() == [1, 0, 0, 2, 0] and v.tolist() == [0, 3, 0, 0, 4]


def test_has_no_place_among_the_deltas_of_a_config():
    from tiny import HOSTS

    with pytest.raises(UserError, match=r'petl\.spt'):
        build_model(HOSTS['vit'].config(dict(entries=dict(type='Sparse', at='qkv'))))
