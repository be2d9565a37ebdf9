"""The gathered product against W + S itself: values, first and second derivatives, rounding, and what it costs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from entries import draw, host_of, some, sparse_of
from steps import near, same, step
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vpetl_mm.fast.sparse import GatheredSparse
from vpetl_mm.petl import Sparse, addition
from vpetl_mm.petl.deltas import deltas_of
from vpetl_mm.petl.host import attach, detach
from vpetl_mm.petl.merging import _merge

D_IN, D_OUT, N = 7, 5, 11
SHAPES = pytest.mark.parametrize('shape', [(D_OUT, D_IN), (D_IN,)], ids=['linear', 'norm'])


def pair(shape: tuple[int, ...], n: int, m: int) -> tuple[nn.Module, nn.Module]:
    """A host of W + S, and one whose output is corrected."""
    plain = host_of(shape)
    attach(plain, 'sparse', sparse_of(shape, n, m)[0])
    gathered = copy.deepcopy(plain)
    GatheredSparse.take_over(gathered.deltas['sparse'], gathered)
    return plain, gathered


@pytest.mark.parametrize('leading', [(4,), (2, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize(('n', 'm'), [(4, 0), (0, 3), (4, 3), (1, 1), (None, None)])
@SHAPES
def test_values_and_gradients(shape, n, m, leading):
    """Of some entries, and of all."""
    plain, gathered = pair(shape, *((torch.Size(shape).numel(), shape[0]) if n is None else (n, m)))
    x = draw(*leading, D_IN)
    same(step(gathered, x), step(plain, x), 1e-11, 1e-11)


@SHAPES
def test_first_and_second_derivatives_numerically(shape):
    _, host = pair(shape, 4, 2)
    delta = host.deltas['sparse']
    names = [n for n, _ in delta.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in delta.parameters()]

    def forward(x: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(delta, dict(zip(names, given, strict=True)), x)

    inputs = [draw(2, 3, D_IN).requires_grad_(), *values]
    assert torch.autograd.gradcheck(forward, inputs)
    assert torch.autograd.gradgradcheck(forward, inputs)


def test_an_input_without_gradients_gets_none():
    _, host = pair((D_OUT, D_IN), N, 0)
    x = draw(3, D_IN)
    host(x).sum().backward()
    assert x.grad is None and host.deltas['sparse'].weight_value.grad.any()


@SHAPES
def test_starts_as_nothing_bit_for_bit(shape):
    _, host = pair(shape, 4, 2)
    x = draw(4, D_IN)
    host.deltas['sparse'].reset_parameters()
    assert torch.equal(host(x), host.plain.forward(host, x))


@pytest.mark.parametrize('shape', [(64, 48), (48,)], ids=['linear', 'norm'])
def test_under_autocast(shape):
    x, (plain, gathered) = draw(32, 9, 48), pair(shape, 40, 10)
    exact = {n: None if t is None else t.float() for n, t in step(plain, x).items()}
    ours, theirs = (step(host.float(), x.float(), amp=True) for host in (gathered, plain))
    assert all(g.dtype == torch.float32 for n, g in ours.items() if g is not None and n != 'y')
    near(ours, theirs, exact, 0.02)


def test_many_entries_of_one_row_are_summed_as_exactly_as_a_product_in_half_precision():
    """600 terms, each of which bfloat16 would round: outputs, and gradients of x where they share a column."""
    generator = torch.Generator().manual_seed(0)
    for shape, index in (((4, 600), torch.arange(600)), ((600, 4), 4 * torch.arange(600))):
        delta = Sparse(index)
        nn.init.normal_(delta.weight_value, generator=generator)
        GatheredSparse.take_over(delta, nn.Linear(*reversed(shape)))
        x = torch.randn(32, shape[1], generator=generator).bfloat16().requires_grad_()
        dense = torch.zeros(shape).flatten().index_copy(0, index, delta.weight_value.detach()).view(shape)
        out = delta(x)
        (to_x,) = torch.autograd.grad(out, x, torch.ones_like(out))
        exact = x.detach().float() @ dense.T, torch.ones(32, shape[0]) @ dense
        for got, wanted in zip((out, to_x), exact, strict=True):
            error = (got.detach().float() - wanted).norm() / wanted.norm()
            assert error < 3e-3, 'one rounding at the end, of 2 to the -9'


class Made(TorchDispatchMode):
    """Notes the size of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        outputs = out if isinstance(out, (tuple, list)) else [out]
        self.sizes.extend(t.numel() for t in outputs if torch.is_tensor(t))
        return out


def test_nothing_of_the_size_of_the_weight_or_of_the_entries_squared_is_made():
    d_out, d_in, n, tokens = 211, 223, 401, 3
    sparse, made, kept = Sparse(some(d_out * d_in, n), some(d_out, 9)), Made(), []
    GatheredSparse.take_over(sparse, nn.Linear(d_in, d_out))
    x, y = torch.randn(1, tokens, d_in, requires_grad=True), torch.randn(1, tokens, d_out)
    with made, torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        addition.add(y, sparse(x)).square().sum().backward()
    assert made.sizes and max(made.sizes) <= tokens * n < min(d_out * d_in, n * n)
    assert max(kept) <= tokens * d_in, 'the corrections of all tokens are not kept'


@SHAPES
@pytest.mark.parametrize('how', [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_merging_and_keys(how, shape):
    plain, host = pair(shape, 4, 3)
    x, twin = draw(3, D_IN), how(host)
    assert torch.equal(twin(x), host(x))
    assert list(host.state_dict()) == list(plain.state_dict())
    bare = host_of(shape)
    bare.load_state_dict({k: v for k, v in host.state_dict().items() if 'deltas' not in k})
    attach(bare, 'sparse', twin.deltas['sparse'])
    _merge(bare, deltas_of(bare), [(bare.weight, bare.bias, 0, len(bare.weight))])
    detach(bare)
    torch.testing.assert_close(bare(x), host(x))


def test_is_captured_as_one_graph():
    _, host = pair((D_OUT, D_IN), N, 3)
    x = draw(3, D_IN)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(host, backend='eager', fullgraph=True)(x), host(x))
