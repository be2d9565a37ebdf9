"""A bottleneck's last step against loops in float64, and what is never written over."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor, nn

from vpetl_mm.fast.addition import add_in_place
from vpetl_mm.petl import AdaptMLP, Addition, Delta
from vpetl_mm.petl.addition import Additions, add, for_slots
from vpetl_mm.petl.host import attach

D, R = 6, 3
SLOTS = ['q', 'k', 'v', 'qk', 'kv', 'qv', 'qkv']
BIAS = pytest.mark.parametrize('bias', [True, False], ids=['bias', 'plain'])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Given(Delta):
    """Adds what it was given."""

    def __init__(self, additions: Additions, reads: str = 'input') -> None:
        super().__init__()
        self.additions, self.reads = additions, reads

    def reset_parameters(self) -> None:
        """Nothing to draw."""

    def forward(self, x: Tensor) -> Additions:
        return self.additions


def written(y: Tensor, additions: Additions, reads: str = 'input') -> Tensor:
    host, delta = nn.Identity(), Given(additions, reads)
    attach(host, 'given', delta)
    return add_in_place(host, delta, delta(y), y)


def by_loops(y: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, scale: float, start: int) -> Tensor:
    """y_j += s (sum_r h_r W_jr + b_j), one number at a time."""
    out = y.detach().double().clone()
    for row, bottle in zip(out.view(-1, y.shape[-1]), h.detach().double().reshape(-1, h.shape[-1]), strict=True):
        for j, line in enumerate(weight.detach().double().tolist()):
            total = sum(a * b for a, b in zip(bottle.tolist(), line, strict=True))
            row[start + j] += scale * (total + (0.0 if bias is None else float(bias[j])))
    return out


@BIAS
@pytest.mark.parametrize(('n', 'start'), [(3 * D, 0), (D, 0), (D, D), (2 * D, D), (1, 17)])
@pytest.mark.parametrize('leading', [(5,), (2, 4), (2, 3, 4)], ids=str)
def test_is_the_formula(leading, n, start, bias):
    y, h, w = draw(*leading, 3 * D), draw(*leading, R, seed=1), draw(n, R, seed=2)
    b = draw(n, seed=3) if bias else None
    expected, part = by_loops(y, h, w, b, 0.7, start), Addition(h, w, b, 0.7, start)
    torch.testing.assert_close(add(y, part), expected)
    torch.testing.assert_close(written(y, part), expected)
    torch.testing.assert_close(y, expected)  # in y's own memory


@pytest.mark.parametrize('trained_scale', [False, True], ids=['number', 'trained_scale'])
@BIAS
def test_first_and_second_derivatives(bias, trained_scale):
    inputs = [draw(2, 3, 4), draw(2, 3, R, seed=1), draw(2, R, seed=2)]
    inputs += [draw(2, seed=3)] * bias + [torch.tensor(0.7, dtype=torch.float64)] * trained_scale
    inputs = [t.clone().requires_grad_() for t in inputs]

    def step(y, h, w, *more):
        more = list(more)
        b = more.pop(0) if bias else None
        return written(y.clone(), Addition(h, w, b, more[0] if trained_scale else 0.7, 1))

    assert torch.autograd.gradcheck(step, inputs)
    assert torch.autograd.gradgradcheck(step, inputs)
    _, h, w, *_ = inputs  # behind a constant gradient as well
    (grad,) = torch.autograd.grad(step(*inputs).sum(), h, create_graph=True)
    (mixed,) = torch.autograd.grad(grad[0, 0, 1], w)
    torch.testing.assert_close(mixed, torch.tensor([[0, 0.7, 0]], dtype=torch.float64).expand(2, R))


@pytest.mark.parametrize('needed', ['y', 'h', 'w'])
def test_only_what_needs_a_gradient_has_one(needed):
    leaves = dict(y=draw(4, D), h=draw(4, R, seed=1), w=draw(D, R, seed=2))
    leaves[needed].requires_grad_()
    y = written(leaves['y'].clone(), Addition(leaves['h'], leaves['w'], None, 0.5))
    y.square().sum().backward()
    assert [n for n, t in leaves.items() if t.grad is not None] == [needed]


@BIAS
@pytest.mark.parametrize('slots', SLOTS)
def test_slots_are_parts_of_the_output(slots, bias):
    up = nn.Linear(R, len(slots) * D, bias=bias).double()
    inputs = [draw(2, 3 * D), draw(2, R, seed=1), *(draw(*p.shape, seed=5) for p in up.parameters())]
    expected = inputs[0]
    for i, slot in enumerate(slots):
        part = slice(i * D, (i + 1) * D)
        b = inputs[3][part] if bias else None
        expected = by_loops(expected, inputs[1], inputs[2][part], b, -1.3, 'qkv'.index(slot) * D)

    def step(y, h, weight, *rest):
        layer = copy.copy(up)
        layer._parameters = dict(weight=weight, bias=rest[0] if bias else None)
        return written(y.clone(), for_slots(h, layer, -1.3, slots))

    torch.testing.assert_close(step(*inputs), expected)
    assert torch.autograd.gradcheck(step, [t.requires_grad_() for t in inputs])


def test_memory_that_does_not_lie_in_rows():
    """Such a y is left as it was; a strided h and a strided gradient are taken as they are."""
    y, w = draw(3 * D, 5).t(), draw(D, R, seed=2)
    h, before = draw(R, 5, seed=1).t(), y.clone()
    result = written(y, Addition(h, w, None, 2.0, D))
    torch.testing.assert_close(result, by_loops(before, h, w, None, 2.0, D))
    assert torch.equal(y, before)
    leaf = h.clone().requires_grad_()
    grad = draw(3 * D, 5, seed=3).t()
    written(draw(5, 3 * D, seed=4), Addition(leaf, w, None, 2.0, D)).backward(grad)
    torch.testing.assert_close(leaf.grad, 2.0 * grad[:, D : 2 * D] @ w)


def test_what_is_the_same_for_every_sample_is_added_to_each():
    """A table's addition, (N, d), and a tensor, (d,)."""
    y, h, w = draw(2, 4, D), draw(4, R, seed=1), draw(2, R, seed=2)
    expected = torch.stack([by_loops(part, h, w, None, 2.0, 3) for part in y])
    torch.testing.assert_close(written(y, Addition(h, w, None, 2.0, 3)), expected)
    torch.testing.assert_close(written(y, h.new_ones(D)), y + 1)


def test_no_tokens():
    h, up = draw(0, R).requires_grad_(), nn.Linear(R, 2 * D).double()
    written(draw(0, 3 * D), for_slots(h, up, 1.0, 'qv')).sum().backward()
    assert h.grad.shape == (0, R)
    assert not up.weight.grad.any() and not up.bias.grad.any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_a_linear_layer_and_a_sum(dtype):
    y, h = draw(64, 3 * D, dtype=dtype), draw(64, R, seed=1, dtype=dtype)
    part = Addition(h, draw(3 * D, R, seed=2, dtype=dtype), draw(3 * D, seed=3, dtype=dtype), 0.5)
    exact, plain = by_loops(y, h, part.weight, part.bias, 0.5, 0), add(y, part)
    ours = written(y, part)
    assert ours.dtype == dtype
    assert (ours - exact).abs().max() <= (plain - exact).abs().max() + torch.finfo(dtype).eps


def test_parameters_of_float32_beside_a_host_in_half_precision():
    """As under autocast: the result is the host's, gradients come in the parameters' own type."""
    h = draw(8, R, seed=1, dtype=torch.float32).requires_grad_()
    w = draw(D, R, seed=2, dtype=torch.float32).requires_grad_()
    y = written(draw(8, D, dtype=torch.bfloat16), Addition(h, w, None, 0.5))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert h.grad.dtype == w.grad.dtype == torch.float32
    torch.testing.assert_close(w.grad, 0.5 * h.detach().sum(0).expand(D, -1), atol=0.05, rtol=0.02)


# What is left alone


class Tanh(Delta):
    """A delta whose gradient is made from what it returned."""

    reads = None

    def reset_parameters(self) -> None:
        """Nothing to draw."""

    def after(self, y: Tensor) -> Tensor:
        return y.tanh()


@pytest.mark.parametrize('order', ['tanh adapter', 'adapter tanh', 'behind adapter tanh adapter2'])
def test_what_a_gradient_needs_is_not_written_over(order):
    made = dict(tanh=Tanh, adapter=lambda: AdaptMLP(D, d_bottle=R), adapter2=lambda: AdaptMLP(D, d_bottle=R))
    made['behind'] = lambda: AdaptMLP(D, d_bottle=R, mode='sequential')
    host, grads = nn.Linear(D, D), []
    for name in order.split():
        attach(host, name, made[name]())
    tiny.randomised(host)
    for adder in (type(host).adder, add_in_place):
        host.adder = adder
        grads.append(torch.autograd.grad(host(draw(4, D, dtype=torch.float32)).square().sum(), host.parameters()))
    for theirs, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_output_that_a_delta_read_stays():
    y = draw(4, D)
    kept = y.clone()
    written(y, Addition(draw(4, R), draw(D, R)), reads='output')
    assert torch.equal(y, kept)
