"""GELU with its derivative in 8 bits against the exact one, and what petl.gelu reaches."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import Tensor, nn
from vpetl_mm.models.gelu import GELU8Bit

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import merge

STEP = 0.0025  # what docs/configs.md states


def derivative(x: Tensor) -> Tensor:
    """Phi(x) + x phi(x), in float64."""
    x = x.detach().double()
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def slope(gelu: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    y = gelu(x)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return grad


GRID = torch.cat([
    torch.linspace(-8, 8, 200_001),  # more than one chunk
    torch.tensor([0.0, -0.0, 1e-40, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38, math.sqrt(2), -math.sqrt(2)]),
])  # fmt: skip


def test_the_derivative_is_within_the_stated_error():
    error = (slope(GELU8Bit(), GRID).double() - derivative(GRID)).abs()
    assert error.max() <= STEP
    assert error.mean() > 1e-4, 'it is rounded at all'


def test_the_derivative_in_bfloat16():
    grid = GRID[GRID.abs() < 1e5].bfloat16()
    exact = derivative(grid)
    error = (slope(GELU8Bit(), grid).double() - exact).abs()
    assert (error <= STEP + exact.abs() * 2**-8).all()


def test_the_tanh_approximation():
    exact, ours = slope(nn.GELU('tanh'), GRID), slope(GELU8Bit('tanh'), GRID)
    small = GRID.abs() < 1e4
    assert (ours - exact)[small].abs().max() <= STEP


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_the_output_is_exact(dtype, approximate):
    x = torch.cat([GRID, torch.tensor([math.inf, -math.inf, math.nan])]).to(dtype)
    expected = nn.GELU(approximate)(x)
    for leaf in (x, x.clone().requires_grad_()):
        ours = GELU8Bit(approximate)(leaf)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, expected, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_become_a_finite_gradient_behind_a_finite_loss(value):
    """PyTorch's derivative is nan there; ours cannot be, and the output, and so the loss, says it in its place."""
    x = torch.tensor([value, 1.0])
    assert slope(nn.GELU(), x)[0].isnan()
    y = GELU8Bit()(x.requires_grad_())
    assert not y[0].isfinite() or value < 0
    assert torch.isnan(y[0]) == torch.isnan(nn.GELU()(x)[0])


@pytest.mark.parametrize('shape', [(0,), (3, 0, 4), ()], ids=str)
def test_sizes_without_a_row(shape):
    x = torch.full(shape, 0.3)
    assert slope(GELU8Bit(), x).shape == shape


def test_memory_that_does_not_lie_in_a_row():
    x = torch.randn(40, 30, 3, generator=torch.Generator().manual_seed(0)).transpose(0, 2)
    grad = torch.randn(40, 3, 30, generator=torch.Generator().manual_seed(1)).permute(1, 2, 0)
    leaf = x.clone().requires_grad_()
    y = GELU8Bit()(leaf.transpose(0, 1))
    (ours,) = torch.autograd.grad(y, leaf, grad.transpose(0, 1))
    torch.testing.assert_close(y, nn.GELU()(x.transpose(0, 1)), atol=2e-6, rtol=0)
    assert ((ours.double() - grad * derivative(x)).abs() <= STEP * grad.abs() + 1e-6).all()
    (expanded,) = torch.autograd.grad(GELU8Bit()(leaf).sum(), leaf)  # a gradient of stride 0
    assert (expanded.double() - derivative(x)).abs().max() <= STEP


@pytest.mark.parametrize('power', [1, 2], ids=['constant', 'dependent'])
def test_second_derivatives_are_refused(power):
    x = torch.randn(5, requires_grad=True)
    with pytest.raises(RuntimeError, match='no second derivatives'):
        torch.autograd.grad(GELU8Bit()(x).pow(power).sum(), x, create_graph=True)


def test_it_keeps_a_byte_an_element():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        GELU8Bit()(torch.randn(1000, requires_grad=True))
    assert sum(t.nbytes for t in kept) == 1000


def test_nothing_is_kept_where_no_gradient_is_asked_for():
    y = GELU8Bit()(torch.randn(5))
    assert y.grad_fn is None
    with torch.no_grad():
        assert GELU8Bit()(torch.randn(5, requires_grad=True)).grad_fn is None


def test_training_follows_the_exact_gradient():
    """As a first-order check: the gradient of a layer's weights points where the exact one does."""
    x, grads = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), []
    for gelu in (nn.GELU(), GELU8Bit()):
        layer = tiny.randomised(nn.Linear(16, 16))
        gelu(layer(x)).square().sum().backward()
        grads.append(layer.weight.grad.flatten())
    assert torch.cosine_similarity(*grads, dim=0) > 0.9999
    assert not torch.equal(*grads)


# petl.gelu

DELTAS = {
    'adapter': dict(type='AdaptMLP', d_bottle=2),
    'patt': dict(type='PATT', d_bottle=2, act='GELU'),
    'after': dict(type='LinearAdapter', at='fc1', d_bottle=2),
}


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_reaches_the_backbones_mlps_and_no_delta(name):
    host = tiny.HOSTS[name]
    model = host.build(DELTAS, petl=dict(gelu='8bit'))
    small = {n for n, m in model.named_modules() if isinstance(m, GELU8Bit)}
    exact = {n for n, m in model.named_modules() if type(m) is nn.GELU}
    mlps = [f'{host.block.format(i)}.{host.below["mlp"]}' for i in range(2)]
    assert len(small) == 2 and all(n.startswith(mlp) for n, mlp in zip(sorted(small), mlps, strict=True))
    assert exact and all('.deltas.' in n for n in exact)


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_outputs_and_keys_are_unchanged_and_gradients_nearly(name):
    host, results = tiny.HOSTS[name], []
    for petl in ({}, dict(gelu='8bit')):
        model = host.build(DELTAS, ['head'], petl=petl).train()
        with model.recomputing():
            y = model.backbone(host.sample(4))
        y = y[-1] if isinstance(y, tuple) else y
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((y.detach(), grads, list(model.state_dict())))
    (y, grads, keys), (y8, grads8, keys8) = results
    assert keys == keys8 and grads.any()
    torch.testing.assert_close(y8, y, atol=0, rtol=0)
    assert not torch.equal(grads, grads8)
    assert torch.cosine_similarity(grads, grads8, dim=0) > 0.999


def test_exact_is_the_default():
    for petl in ({}, dict(gelu='exact')):
        model = tiny.HOSTS['swin3d'].build(petl=petl)
        assert not any(isinstance(m, GELU8Bit) for m in model.modules())


@pytest.mark.parametrize('wrong', ['8', '4bit', 8, True, None])
def test_another_value_is_refused(wrong):
    with pytest.raises(UserError, match=r"petl\.gelu must be one of 'exact', '8bit'"):
        build_model(tiny.HOSTS['swin3d'].config(petl=dict(gelu=wrong)))


def test_mlps_without_gelu_are_refused():
    config = tiny.VIT.config(petl=dict(gelu='8bit'))
    config['model']['backbone']['layer_cfgs'] = dict(act_cfg=dict(type='ReLU'))
    with pytest.raises(UserError, match='have no GELU'):
        build_model(config)


def test_merging():
    lora = dict(lora=dict(type='LoRA', at='fc1', rank=2))
    host, x = tiny.HOSTS['swin3d'], tiny.HOSTS['swin3d'].sample()
    model = host.build(lora, petl=dict(gelu='8bit'))
    expected = tiny.features(model, x)
    torch.testing.assert_close(tiny.features(merge(model), x), expected, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == list(host.build().state_dict())
