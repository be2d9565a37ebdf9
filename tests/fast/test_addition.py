"""A bottleneck's last step against loops in float64, and on every host that it adds to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from vpetl_mm.petl.update import add_up, add_up_to_slots

from vpetl_mm.petl import PATT, AdaptMLP, LoRA
from vpetl_mm.petl.host import attach

D, R = 6, 3
SLOTS = ['q', 'k', 'v', 'qk', 'kv', 'qv', 'qkv']


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_loops(y: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, scale: float, start: int) -> Tensor:
    """y_j += s (sum_r h_r W_jr + b_j), one number at a time."""
    out = y.detach().double().clone()
    for row, bottle in zip(out.view(-1, y.shape[-1]), h.detach().double().reshape(-1, h.shape[-1]), strict=True):
        for j, line in enumerate(weight.detach().double().tolist()):
            total = sum(a * b for a, b in zip(bottle.tolist(), line, strict=True))
            row[start + j] += scale * (total + (0.0 if bias is None else float(bias[j])))
    return out


def linear_in_double(seed: int, d_out: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(R, d_out, bias=bias).double()
    with torch.no_grad():
        for number, parameter in enumerate(linear.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed + number))
    return linear


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'plain'])
@pytest.mark.parametrize(('n', 'start'), [(3 * D, 0), (D, 0), (D, D), (2 * D, D), (1, 17)])
@pytest.mark.parametrize('leading', [(5,), (2, 4), (2, 3, 4)], ids=str)
def test_is_the_formula(leading, n, start, bias):
    y, h, w = draw(*leading, 3 * D), draw(*leading, R, seed=1), draw(n, R, seed=2)
    b = draw(n, seed=3) if bias else None
    expected = by_loops(y, h, w, b, 0.7, start)
    torch.testing.assert_close(add_up(y, h, w, b, 0.7, start), expected)
    torch.testing.assert_close(y, expected)  # in y's own memory


@pytest.mark.parametrize('trained_scale', [False, True], ids=['number', 'trained_scale'])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'plain'])
def test_gradients_are_the_derivatives(bias, trained_scale):
    inputs = [draw(2, 3, 4), draw(2, 3, R, seed=1), draw(2, R, seed=2)]
    inputs += [draw(2, seed=3)] * bias + [torch.tensor(0.7, dtype=torch.float64)] * trained_scale
    inputs = [t.clone().requires_grad_() for t in inputs]

    def step(y, h, w, *more):
        more = list(more)
        b = more.pop(0) if bias else None
        return add_up(y.clone(), h, w, b, more[0] if trained_scale else 0.7, 1)

    assert torch.autograd.gradcheck(step, inputs)


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'plain'])
def test_second_derivatives(bias):
    inputs = [draw(2, 3, 4), draw(2, 3, R, seed=1), draw(2, R, seed=2), *[draw(2, seed=3)] * bias]
    inputs = [t.clone().requires_grad_() for t in inputs]

    def step(y, h, w, b=None):
        return add_up(y.clone(), h, w, b, 0.7, 1)

    assert torch.autograd.gradgradcheck(step, inputs)
    _, h, w, *_ = inputs  # behind a constant gradient as well
    (grad,) = torch.autograd.grad(step(*inputs).sum(), h, create_graph=True)
    (mixed,) = torch.autograd.grad(grad[0, 0, 1], w)
    torch.testing.assert_close(mixed, torch.tensor([[0, 0.7, 0]], dtype=torch.float64).expand(2, R))


@pytest.mark.parametrize('needed', ['y', 'h', 'w'])
def test_only_what_needs_a_gradient_has_one(needed):
    leaves = dict(y=draw(4, D), h=draw(4, R, seed=1), w=draw(D, R, seed=2))
    leaves[needed].requires_grad_()
    y = leaves['y'].clone()
    add_up(y, leaves['h'], leaves['w'], None, 0.5).square().sum().backward()
    assert [n for n, t in leaves.items() if t.grad is not None] == [needed]


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'plain'])
@pytest.mark.parametrize('slots', SLOTS)
def test_slots_are_parts_of_the_output(slots, bias):
    up = linear_in_double(5, len(slots) * D, bias)
    y, h = draw(2, 4, 3 * D), draw(2, 4, R, seed=1)
    expected = y.clone()
    for i, slot in enumerate(slots):
        part = slice(i * D, (i + 1) * D)
        b = up.bias[part] if bias else None
        expected = by_loops(expected, h, up.weight[part], b, -1.3, 'qkv'.index(slot) * D)
    torch.testing.assert_close(add_up_to_slots(y, h, up, -1.3, slots), expected)


@pytest.mark.parametrize('slots', SLOTS)
def test_gradients_of_slots(slots):
    up = linear_in_double(5, len(slots) * D, True)
    inputs = [draw(2, 3 * D), draw(2, R, seed=1), *(p.detach().clone() for p in up.parameters())]

    def step(y, h, weight, bias):
        linear = nn.Linear(R, len(slots) * D).double()
        del linear.weight, linear.bias
        linear.weight, linear.bias = weight, bias
        return add_up_to_slots(y.clone(), h, linear, 0.7, slots)

    assert torch.autograd.gradcheck(step, [t.requires_grad_() for t in inputs])


def test_memory_that_does_not_lie_in_rows():
    """Such a y is left as it was; a strided h and a strided gradient are taken as they are."""
    y, w = draw(3 * D, 5).t(), draw(D, R, seed=2)
    h, before = draw(R, 5, seed=1).t(), y.clone()
    result = add_up(y, h, w, None, 2.0, D)
    torch.testing.assert_close(result, by_loops(before, h, w, None, 2.0, D))
    assert torch.equal(y, before)
    leaf = h.clone().requires_grad_()
    other = draw(5, 3 * D, seed=4)
    grad = draw(3 * D, 5, seed=3).t()
    add_up(other, leaf, w, None, 2.0, D).backward(grad)
    torch.testing.assert_close(leaf.grad, 2.0 * grad[:, D : 2 * D] @ w)


def test_no_tokens():
    y, h, up = draw(0, 3 * D), draw(0, R).requires_grad_(), linear_in_double(5, 2 * D, True)
    add_up_to_slots(y, h, up, 1.0, 'qv').sum().backward()
    assert h.grad.shape == (0, R)
    assert not up.weight.grad.any() and not up.bias.grad.any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_a_linear_layer_and_a_sum(dtype):
    y, h = draw(64, 3 * D, dtype=dtype), draw(64, R, seed=1, dtype=dtype)
    w, b = draw(3 * D, R, seed=2, dtype=dtype), draw(3 * D, seed=3, dtype=dtype)
    exact = by_loops(y, h, w, b, 0.5, 0)
    plain = y + nn.functional.linear(h, w, b) * 0.5
    ours = add_up(y, h, w, b, 0.5)
    assert ours.dtype == dtype
    assert (ours - exact).abs().max() <= (plain - exact).abs().max() + torch.finfo(dtype).eps


def test_parameters_of_float32_beside_a_host_in_half_precision():
    """As under autocast: the result is the host's, gradients come in the parameters' own type."""
    h = draw(8, R, seed=1, dtype=torch.float32).requires_grad_()
    w = draw(D, R, seed=2, dtype=torch.float32).requires_grad_()
    y = add_up(draw(8, D, dtype=torch.bfloat16), h, w, None, 0.5)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert h.grad.dtype == w.grad.dtype == torch.float32
    torch.testing.assert_close(w.grad, 0.5 * h.detach().sum(0).expand(D, -1), atol=0.05, rtol=0.02)


# The deltas that use it

DELTAS = {
    **{f'patt_{slots}': lambda slots=slots: PATT(D, d_bottle=R, slots=slots) for slots in ('kv', 'qv', 'qk', 'qkv')},
    'patt_plain': lambda: PATT(D, d_bottle=R, slots='qk', bias=False),
    'patt_down': lambda: PATT(D, d_bottle=R, slots='qv', bias='down', learn_scale=True),
    'lora_all': lambda: LoRA(D, D, 'qkv', slots='qkv', rank=R, alpha=2.0),
    'lora_qv': lambda: LoRA(D, D, 'qkv', slots='qv', rank=R),
    'adapter': lambda: AdaptMLP(3 * D, d_bottle=R),
    'adapter_trained': lambda: AdaptMLP(3 * D, d_bottle=R, learn_scale=True),
    'sequential': lambda: AdaptMLP(3 * D, d_bottle=R, mode='sequential'),
}


def made(name: str) -> nn.Module:
    delta = DELTAS[name]().double()
    with torch.no_grad():
        for number, parameter in enumerate(delta.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=10 + number))
    return delta


def plain(delta: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What a delta stands for, each slot by itself."""
    if isinstance(delta, AdaptMLP):
        h = nn.functional.linear(y if delta.mode == 'sequential' else x, delta.down.weight, delta.down.bias)
        return y + delta.scale * nn.functional.linear(h.relu(), delta.up.weight, delta.up.bias)
    q, k, v = y.chunk(3, -1)
    parts = dict(q=q, k=k, v=v)
    if isinstance(delta, LoRA):
        for name, a in delta.A.items():
            parts[name] = parts[name] + delta.scale * (x @ a.weight.T) @ delta.B[name].weight.T
    else:
        h = nn.functional.linear(x, delta.down.weight, delta.down.bias).tanh()
        for i, name in enumerate(delta.slots):
            part = slice(i * D, (i + 1) * D)
            bias = None if delta.up.bias is None else delta.up.bias[part]
            parts[name] = parts[name] + delta.scale * nn.functional.linear(h, delta.up.weight[part], bias)
    return torch.cat([parts[n] for n in 'qkv'], -1)


def width(delta: nn.Module) -> int:
    return 3 * D if isinstance(delta, AdaptMLP) else D


@pytest.mark.parametrize('name', DELTAS)
def test_a_direct_call_leaves_its_inputs_alone(name):
    delta = made(name)
    x, y = draw(2, 4, width(delta)), draw(2, 4, 3 * D, seed=1)
    kept = x.clone(), y.clone()
    torch.testing.assert_close(delta(x, y), plain(delta, x, y))
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


STACKS = [[name] for name in DELTAS] + [
    ['patt_qk', 'lora_qv'],
    ['lora_all', 'patt_qv', 'patt_plain'],
    ['adapter', 'sequential'],
    ['sequential', 'adapter'],
    ['sequential', 'sequential', 'adapter_trained'],
]


@pytest.mark.parametrize('trained', [False, True], ids=['frozen_host', 'trained_host'])
@pytest.mark.parametrize('names', STACKS, ids='+'.join)
def test_a_host_with_deltas_is_host_and_sums(names, trained):
    deltas = [made(name) for name in names]
    host = nn.Linear(width(deltas[0]), 3 * D).double().requires_grad_(trained)
    x = draw(2, 4, host.in_features)
    results = []
    for hosted in (False, True):
        leaf = x.clone().requires_grad_()
        if hosted:
            for number, delta in enumerate(deltas):
                attach(host, f'd{number}', delta)
            y = host(leaf)
        else:
            y = host(leaf)
            for delta in deltas:
                y = plain(delta, leaf, y)
        owned = [host.weight, host.bias] * trained + [p for d in deltas for p in d.parameters()]
        results.append((y.detach(), *torch.autograd.grad((y * draw(*y.shape, seed=2)).sum(), [leaf, *owned])))
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)
