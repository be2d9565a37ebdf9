"""Sparse against a dense matrix of the same entries."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import Sparse
from vpetl_mm.petl.host import attach, detach

D_IN, D_OUT, N = 7, 5, 11
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def entries(size: int, n: int) -> Tensor:
    return torch.randperm(size, generator=GENERATOR)[:n].sort().values


def of(shape: tuple[int, ...], n: int = N, m: int = 0, eps: float = 0.0) -> tuple[Sparse, Tensor, Tensor]:
    """With random values, and the dense weight and bias that these make up."""
    size, width = torch.Size(shape).numel(), shape[0]
    sparse = Sparse(shape, entries(size, n) if n else None, entries(width, m) if m else None, eps).double()
    weight, bias = torch.zeros(size, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    with torch.no_grad():
        for value, index, dense in (
            (sparse.weight_value, sparse.weight_index, weight),
            (sparse.bias_value, sparse.bias_index, bias),
        ):
            if value is not None:
                value.copy_(draw(len(value)))
                dense[index.long()] = value
    return sparse, weight.view(shape), bias


LEADING = [(4,), (2, 3), (2, 3, 2)]


@pytest.mark.parametrize('leading', LEADING, ids=str)
@pytest.mark.parametrize(('n', 'm'), [(N, 0), (0, 3), (N, 3), (1, 1), (D_IN * D_OUT, D_OUT)])
def test_on_a_linear_layer(leading, n, m):
    sparse, weight, bias = of((D_OUT, D_IN), n, m)
    host = nn.Linear(D_IN, D_OUT).double()
    x = draw(*leading, D_IN).requires_grad_()
    y = sparse(x, host(x))
    expected = F.linear(x, host.weight + weight, host.bias + bias)
    torch.testing.assert_close(y, expected)
    other = draw(*leading, D_OUT)
    ours = torch.autograd.grad((y * other).sum(), [x, *sparse.parameters()])
    dense = [t.requires_grad_() for t in (weight.clone(), bias.clone())]
    full = F.linear(x, host.weight + dense[0], host.bias + dense[1])
    to_x, to_weight, to_bias = torch.autograd.grad((full * other).sum(), [x, *dense])
    wanted = [to_x]
    wanted += [to_weight.view(-1)[sparse.weight_index.long()]] if n else []
    wanted += [to_bias[sparse.bias_index.long()]] if m else []
    assert len(ours) == len(wanted)
    for our, want in zip(ours, wanted, strict=True):
        torch.testing.assert_close(our, want)


@pytest.mark.parametrize('leading', LEADING, ids=str)
def test_on_a_layer_norm(leading):
    sparse, weight, bias = of((D_IN,), 4, 3, eps=1e-3)
    host = nn.LayerNorm(D_IN, eps=1e-3).double()
    with torch.no_grad():
        host.weight.copy_(draw(D_IN))
    x = draw(*leading, D_IN).requires_grad_()
    y = sparse(x, host(x))
    dense = [(host.weight + weight).detach().requires_grad_(), (host.bias + bias).detach().requires_grad_()]
    expected = F.layer_norm(x, (D_IN,), *dense, eps=1e-3)
    torch.testing.assert_close(y, expected)
    other = draw(*leading, D_IN)
    ours = torch.autograd.grad((y * other).sum(), [x, *sparse.parameters()])
    to_x, to_weight, to_bias = torch.autograd.grad((expected * other).sum(), [x, *dense])
    named = dict(zip([n for n, _ in sparse.named_parameters()], ours[1:], strict=True))
    torch.testing.assert_close(ours[0], to_x)
    torch.testing.assert_close(named['weight_value'], to_weight[sparse.weight_index.long()])
    torch.testing.assert_close(named['bias_value'], to_bias[sparse.bias_index.long()])


@pytest.mark.parametrize('shape', [(D_OUT, D_IN), (D_IN,)], ids=str)
def test_gradients_numerically(shape):
    sparse, _, _ = of(shape, 4, 2, eps=1e-2)
    inputs = [draw(2, 3, D_IN).requires_grad_(), draw(2, 3, shape[0]).requires_grad_()]
    values = [p.detach().clone().requires_grad_() for p in sparse.parameters()]
    names = [n for n, _ in sparse.named_parameters()]

    def forward(x: Tensor, y: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(sparse, dict(zip(names, given, strict=True)), (x, y))

    assert torch.autograd.gradcheck(forward, [*inputs, *values])
    assert torch.autograd.gradgradcheck(forward, [*inputs, *values])


def test_an_input_without_gradients_gets_none():
    sparse, _, _ = of((D_OUT, D_IN))
    x, y = draw(3, D_IN), draw(3, D_OUT)
    sparse(x, y).sum().backward()
    assert x.grad is None and sparse.weight_value.grad.any()


def test_starts_as_nothing_bit_for_bit():
    sparse = Sparse((D_OUT, D_IN), entries(35, N), entries(D_OUT, 2))
    x, y = torch.randn(4, 3, D_IN), torch.randn(4, 3, D_OUT)
    assert torch.equal(sparse(x, y), y)
    with torch.no_grad():
        for p in sparse.parameters():
            p.fill_(1.0)
    assert not torch.equal(sparse(x, y), y)
    sparse.reset_parameters()
    assert torch.equal(sparse(x, y), y)


@pytest.mark.parametrize('shape', [(64, 48), (48,)], ids=str)
def test_under_autocast(shape):
    sparse, weight, bias = of(shape, 40, 10, eps=1e-6)
    sparse = sparse.float()
    host = (nn.Linear(48, 64) if len(shape) == 2 else nn.LayerNorm(48, eps=1e-6)).requires_grad_(False)
    attach(host, 'sparse', sparse)
    x = torch.randn(32, 9, 48, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = host(x)
    y.float().square().sum().backward()
    grads = [x.grad, *(p.grad for p in sparse.parameters())]
    assert all(g.dtype == torch.float32 for g in grads)

    at = x.detach().double().requires_grad_()
    weight.requires_grad_(), bias.requires_grad_()
    if len(shape) == 2:
        exact = F.linear(at, host.weight.double() + weight, host.bias.double() + bias)
    else:
        exact = F.layer_norm(at, (48,), host.weight.double() + weight, host.bias.double() + bias, eps=1e-6)
    exact.square().sum().backward()
    named = dict(zip([n for n, _ in sparse.named_parameters()], grads[1:], strict=True))
    for ours, theirs in (
        (y, exact),
        (grads[0], at.grad),
        (named['weight_value'], weight.grad.view(-1)[sparse.weight_index.long()]),
        (named['bias_value'], bias.grad[sparse.bias_index.long()]),
    ):
        assert (ours.double() - theirs).norm() < 0.02 * theirs.norm()


# what it costs


class Sizes:
    """How large what autograd keeps is, and every tensor that is made."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, ...]] = []

    def pack(self, tensor: Tensor) -> Tensor:
        self.kept.append(tuple(tensor.shape))
        return tensor


def test_many_entries_of_one_row_are_summed_as_exactly_as_a_product_in_half_precision():
    """600 terms, each of which bfloat16 would round: outputs, and gradients of x where they share a column."""
    generator = torch.Generator().manual_seed(0)
    for shape, index in (((4, 600), torch.arange(600)), ((600, 4), 4 * torch.arange(600))):
        delta = Sparse(shape, index)
        nn.init.normal_(delta.weight_value, generator=generator)
        x = torch.randn(32, shape[1], generator=generator).bfloat16().requires_grad_()
        y = torch.zeros(32, shape[0], dtype=torch.bfloat16)
        dense = torch.zeros(shape).flatten().index_copy(0, index, delta.weight_value.detach()).view(shape)
        out = delta(x, y)
        (to_x,) = torch.autograd.grad(out, x, torch.ones_like(out))
        exact = x.detach().float() @ dense.T, torch.ones(32, shape[0]) @ dense
        for got, wanted in zip((out, to_x), exact, strict=True):
            error = (got.detach().float() - wanted).norm() / wanted.norm()
            assert error < 3e-3, 'one rounding at the end, of 2 to the -9'


def test_nothing_of_the_size_of_the_weight_or_of_the_entries_squared_is_made():
    from torch.utils._python_dispatch import TorchDispatchMode

    d_out, d_in, n, tokens = 211, 223, 401, 3

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.numel() for t in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(t))
            return out

    sparse = Sparse((d_out, d_in), entries(d_out * d_in, n), entries(d_out, 9))
    x, y, made, sizes = torch.randn(1, tokens, d_in, requires_grad=True), torch.randn(1, tokens, d_out), [], Sizes()
    with Made(), torch.autograd.graph.saved_tensors_hooks(sizes.pack, lambda t: t):
        sparse(x, y).square().sum().backward()
    assert made and max(made) <= tokens * n < min(d_out * d_in, n * n)
    numbers = [torch.Size(s).numel() for s in sizes.kept]
    assert max(numbers) <= tokens * d_in, 'the corrections of all tokens are not kept'


def test_is_saved_as_index_and_value_alone():
    sparse, _, _ = of((D_OUT, D_IN), N, 3)
    state = sparse.state_dict()
    assert {k: (v.numel(), v.is_floating_point()) for k, v in state.items()} == {
        'weight_index': (N, False), 'weight_value': (N, True), 'bias_index': (3, False), 'bias_value': (3, True),
    }  # fmt: skip
    other = Sparse((D_OUT, D_IN), torch.arange(N), torch.arange(3)).double()
    other.load_state_dict(state)
    x, y = draw(3, D_IN), draw(3, D_OUT)
    assert torch.equal(other(x, y), sparse(x, y))


def test_only_values_are_parameters():
    sparse, _, _ = of((D_OUT, D_IN), N, 3)
    assert sum(p.numel() for p in sparse.parameters()) == N + 3 and all(p.ndim == 1 for p in sparse.parameters())
    assert [n for n, _ in of((D_OUT, D_IN), N, 0)[0].named_parameters()] == ['weight_value']


@pytest.mark.parametrize('how', [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(how):
    sparse, _, _ = of((D_OUT, D_IN), N, 3)
    x, y = draw(3, D_IN), draw(3, D_OUT)
    assert torch.equal(how(sparse)(x, y), sparse(x, y))


@pytest.mark.parametrize('leading', LEADING, ids=str)
def test_merging_on_a_linear_layer(leading):
    host = nn.Linear(D_IN, D_OUT).double()
    sparse, weight, bias = of((D_OUT, D_IN), N, 3)
    before = copy.deepcopy(host.state_dict())
    attach(host, 'sparse', sparse)
    x = draw(*leading, D_IN)
    expected = host(x)
    detach(host)
    sparse.merge(host, [(host.bias, 0)])
    torch.testing.assert_close(host(x), expected)
    for name, change in (('weight', weight), ('bias', bias)):
        assert torch.equal(getattr(host, name), before[name] + change)


def test_merging_into_biases_of_parts_of_the_output():
    """As VideoMAE's: q from 0, v from 10, and nothing between."""
    host = nn.Linear(4, 15, bias=False).double()
    sparse = Sparse((15, 4), None, torch.tensor([0, 3, 11, 14])).double()
    with torch.no_grad():
        sparse.bias_value.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    q, v = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    sparse.merge(host, [(q, 0), (v, 10)])
    assert q.tolist() == [1, 0, 0, 2, 0] and v.tolist() == [0, 3, 0, 0, 4]


def test_is_captured_as_one_graph():
    sparse, _, _ = of((D_OUT, D_IN), N, 3)
    x, y = draw(3, D_IN), draw(3, D_OUT)
    torch._dynamo.reset()
    compiled = torch.compile(sparse, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x, y), sparse(x, y))


def test_has_no_place_among_the_deltas_of_a_config():
    from tiny import HOSTS

    with pytest.raises(UserError, match=r'petl\.spt'):
        build_model(HOSTS['vit'].config(dict(entries=dict(type='Sparse', at='qkv'))))
