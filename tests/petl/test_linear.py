"""FastLinear against float64 and nn.Linear, and where it leaves things to nn.Linear."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from onednn import products
from torch import Tensor, nn

from vpetl_mm.petl import FastLinear, activated
from vpetl_mm.petl.update import add_up

SHAPES = [(5, 24), (3, 7, 24), (2, 3, 4, 24), (1, 24), (1, 1, 1, 24), (300, 24)]


def layer(d_in: int = 24, d_out: int = 40, bias: bool = True, trained: bool = False) -> FastLinear:
    torch.manual_seed(0)
    return FastLinear(d_in, d_out, bias=bias).requires_grad_(trained)


def exact(fast: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x.double(), fast.weight.double(), None if fast.bias is None else fast.bias.double())


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    assert (ours.double() - theirs).abs().max() <= 1e-6 * max(1, theirs.abs().max())


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_outputs(shape, bias):
    fast, x = layer(bias=bias), torch.randn(shape)
    with torch.no_grad(), products(none=1):
        y = fast(x)
    close(y, exact(fast, x))


ACTIVATIONS = dict(gelu=nn.GELU(), tanh=nn.Tanh())


@pytest.mark.parametrize('name', ACTIVATIONS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_an_activation_in_the_same_call(shape, name):
    fast, x, act = layer(), torch.randn(shape) * 4, ACTIVATIONS[name]
    with torch.no_grad(), products(**{name: 1}):
        y = activated(fast, act, x)
    close(y, act(exact(fast, x)))


@pytest.mark.parametrize('name', ACTIVATIONS)
@pytest.mark.parametrize('value', [1e30, -1e30, 3e38, -3e38, 20, -20, 1e-40, float('nan')], ids=str)
def test_an_activation_of_what_is_large_or_no_number(value, name):
    fast, x, act = layer(8, 8), torch.zeros(2, 8), ACTIVATIONS[name]
    with torch.no_grad():
        fast.weight.copy_(torch.eye(8))
        fast.bias.zero_()
        x[0, 0] = value
        with products(**{name: 1}):
            y = activated(fast, act, x)
        torch.testing.assert_close(y, act(F.linear(x, fast.weight)), equal_nan=True)


@pytest.mark.parametrize(
    'view',
    [lambda x: x.transpose(0, 1), lambda x: x[:, ::2], lambda x: x[:1].expand(9, -1, -1), lambda x: x[:, :, 3:27]],
    ids=['transposed', 'strided', 'expanded', 'narrowed'],
)
def test_inputs_that_do_not_lie_in_a_row(view):
    fast, base = layer(), torch.randn(4, 6, 40)[..., :24]
    x = view(base if view(base).shape[-1] == 24 else torch.randn(4, 6, 40)).requires_grad_()
    with products(none=2):
        y = fast(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
    close(y, exact(fast, x))
    close(grad, fast.weight.double().sum(0).expand(x.shape))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_gradients(shape, bias):
    fast, x, to_y = layer(bias=bias), torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 40)
    with products(none=2):
        y = fast(x)
        (grad,) = torch.autograd.grad(y, x, to_y)
    close(y, exact(fast, x))
    close(grad, to_y.double() @ fast.weight.double())


def test_a_gradient_of_the_gradient():
    fast, x = layer(), torch.randn(3, 24, requires_grad=True)
    (grad,) = torch.autograd.grad(fast(x).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    wanted = x.detach().double().requires_grad_()
    (first,) = torch.autograd.grad(exact(fast, wanted).pow(3).sum(), wanted, create_graph=True)
    (theirs,) = torch.autograd.grad(first.sum(), wanted)
    assert (second.double() - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_only_the_weight_is_kept_for_the_backward_pass():
    fast, x, kept = layer(), torch.randn(3, 24, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fast(x)
    assert [t.data_ptr() for t in kept] == [fast.weight.data_ptr()]


def test_a_weight_that_changes_before_the_backward_pass_is_an_error():
    fast, x = layer(), torch.randn(3, 24, requires_grad=True)
    y = fast(x)
    with torch.no_grad():
        fast.weight.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


@pytest.mark.parametrize('shape', [(6, 24), (2, 3, 24)], ids=str)
def test_a_delta_may_write_into_the_output(shape):
    fast, x = layer(), torch.randn(shape, requires_grad=True)
    h, up = torch.randn(*shape[:-1], 4, requires_grad=True), torch.randn(40, 4, requires_grad=True)
    add_up(fast(x), h, up, None, 0.5).sum().backward()
    ours = x.grad, h.grad, up.grad
    x.grad = h.grad = up.grad = None
    (F.linear(x, fast.weight, fast.bias) + 0.5 * h @ up.t()).sum().backward()
    for mine, theirs in zip(ours, (x.grad, h.grad, up.grad), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('act', [nn.ReLU(), nn.GELU('tanh'), nn.Sigmoid()], ids=str)
def test_an_activation_that_lies_apart(act):
    fast, x = layer(), torch.randn(3, 24)
    x[0, 0] = float('nan')  # of which oneDNN's own ReLU makes 0
    with torch.no_grad(), products(none=1):
        y = activated(fast, act, x)
    assert torch.equal(y.isnan(), act(exact(fast, x)).isnan()) and y[0].isnan().all()
    close(y[1:], act(exact(fast, x))[1:])


# What is left to nn.Linear


def same_as_linear(fast: FastLinear, x: Tensor) -> None:
    with products():
        y = fast(x)
    assert torch.equal(y, F.linear(x, fast.weight, fast.bias))


def test_weights_that_train():
    fast, x = layer(trained=True), torch.randn(3, 24)
    same_as_linear(fast, x)
    fast.weight.requires_grad_(False)
    same_as_linear(fast, x)  # the bias still does
    with torch.no_grad(), products(none=1):
        fast(x)


@pytest.mark.parametrize('shape', [(24,), (0, 24), (2, 0, 24)], ids=str)
def test_a_vector_and_no_rows(shape):
    same_as_linear(layer(), torch.randn(shape))
    same_as_linear(layer(), torch.randn(shape, requires_grad=True))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    same_as_linear(layer().to(dtype), torch.randn(3, 24, dtype=dtype))


def test_autocast():
    fast, x = layer(), torch.randn(3, 24)
    with torch.autocast('cpu', torch.bfloat16), products():
        assert fast(x).dtype == torch.bfloat16


@pytest.mark.parametrize(('rows', 'taken'), [(1023, 0), (1024, 1)])
def test_small_products(rows, taken, monkeypatch):
    monkeypatch.setattr('vpetl_mm.petl.linear.WORTH_FROM', 2**20)
    with torch.no_grad(), products(**({'none': 1} if taken else {})):
        layer(32, 32)(torch.randn(rows, 32))


def test_torch_can_be_told_not_to():
    with torch.backends.mkldnn.flags(enabled=False):
        same_as_linear(layer(), torch.randn(3, 24))


def test_a_torch_without_it(monkeypatch):
    monkeypatch.setattr('vpetl_mm.petl.linear.PRODUCT', None)
    same_as_linear(layer(), torch.randn(3, 24))


def test_the_wrong_width_is_torchs_error():
    with torch.no_grad(), pytest.raises(RuntimeError, match='mat1 and mat2'):
        layer()(torch.randn(3, 25))


@pytest.mark.parametrize(
    'change',
    [
        lambda fast: setattr(fast, 'bias', nn.Parameter(torch.randn(80)[::2], requires_grad=False)),
        lambda fast: setattr(fast, 'bias', nn.Parameter(torch.randn(1).expand(40), requires_grad=False)),
        lambda fast: setattr(fast, 'weight', nn.Parameter(torch.randn(24, 40).t(), requires_grad=False)),
    ],
    ids=['strided_bias', 'expanded_bias', 'transposed_weight'],
)
def test_parameters_that_do_not_lie_in_a_row(change):
    fast = layer()
    change(fast)
    same_as_linear(fast, torch.randn(3, 24))


def test_transforms_of_torch_func():
    fast, x, t = layer(), torch.randn(3, 24), torch.randn(3, 24)
    with products():
        y, moved = torch.func.jvp(fast, (x,), (t,))
        grad = torch.func.grad(lambda x: fast(x).pow(2).sum())(x)
        rows = torch.func.vmap(fast)(x)
    torch.testing.assert_close(moved, F.linear(t, fast.weight))
    torch.testing.assert_close(grad, 2 * y @ fast.weight)
    torch.testing.assert_close(rows, y)


def test_forward_mode():
    fast, x, t = layer(), torch.randn(3, 24), torch.randn(3, 24)
    with torch.autograd.forward_ad.dual_level(), products():
        moved = torch.autograd.forward_ad.unpack_dual(fast(torch.autograd.forward_ad.make_dual(x, t))).tangent
    torch.testing.assert_close(moved, F.linear(t, fast.weight))


def test_tracing():
    fast, x = layer(), torch.randn(3, 24)
    traced = torch.jit.trace(fast, x)
    assert 'mkldnn' not in str(traced.graph)
    torch.testing.assert_close(traced(x), fast(x))


def test_a_global_hook_sees_layer_and_activation():
    fast, x, seen = layer(), torch.randn(3, 24), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, y: seen.append(type(m)))
    try:
        with torch.no_grad(), products(none=1):
            activated(fast, nn.GELU(), x)
    finally:
        handle.remove()
    assert seen == [FastLinear, nn.GELU]


@pytest.mark.parametrize('patched', [0, 1], ids=['layer', 'activation'])
def test_a_forward_that_someone_put_in_its_place(patched):
    pair = layer(), nn.GELU()
    pair[patched].forward = lambda x: torch.full((3, 40), 3.0)
    with torch.no_grad():
        y = activated(*pair, torch.randn(3, 24))
    assert torch.equal(y, torch.full((3, 40), 3.0) if patched else F.gelu(torch.full((3, 40), 3.0)))


def test_compiled_code_has_the_plain_layer():
    fast, x, called = layer(), torch.randn(3, 24), []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        called.extend(node.target for node in graph.graph.nodes if node.op == 'call_function')
        return graph

    torch.testing.assert_close(torch.compile(fast, backend=backend, fullgraph=True)(x), fast(x), atol=1e-6, rtol=1e-6)
    assert called == [torch._C._nn.linear]


def test_copies_and_keys():
    fast, x = layer(), torch.randn(3, 24)
    assert set(fast.state_dict()) == {'weight', 'bias'}
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other) is FastLinear and torch.equal(other(x), fast(x))
