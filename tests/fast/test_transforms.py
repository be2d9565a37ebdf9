"""What looks at or transforms a model: torch.func, tracing and hooks, with deltas that write in place."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

DELTAS = dict(patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5))
HOSTS = {**{name: (host, host.sample()) for name, host in tiny.HOSTS.items()}}
HOSTS['swin3d_in_windows'] = (tiny.HOSTS['swin3d'], tiny.clip(2, (4, 32, 32)))  # which its windows divide


def last(model: nn.Module, x: Tensor) -> Tensor:
    with model.recomputing():
        y = model.backbone(x)
    return y[-1] if isinstance(y, tuple) else y


def loss(model: nn.Module, x: Tensor) -> Tensor:
    y = last(model, x)
    return (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()


class Last(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return last(self.model, x)


@pytest.mark.parametrize('gelu', ['exact', '8bit'])
@pytest.mark.parametrize('name', HOSTS)
def test_torch_func(name, gelu):
    host, x = HOSTS[name]
    model, exact = host.build(DELTAS, petl=dict(gelu=gelu)), host.build(DELTAS)  # of the same weights
    ours = torch.func.grad(lambda x: loss(model, x))(x)
    leaf = x.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(loss(exact, leaf), leaf)
    assert theirs.any() and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.filterwarnings('ignore')  # tracing is deprecated, and says what it cannot see
@pytest.mark.parametrize('name', HOSTS)
def test_tracing(name):
    host, x = HOSTS[name]
    model = host.build(DELTAS)
    traced = torch.jit.trace(Last(model), x)
    other = torch.flip(x, [0]) * 0.5
    with torch.no_grad():
        theirs = last(model, other)
    assert (traced(other) - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize('name', HOSTS)
def test_second_derivatives(name):
    """Where torch's attention has them; its kernel for the CPU says that it has none."""
    host, x = HOSTS[name]
    deltas, results = {'adapter': DELTAS['adapter']} if name == 'videomae' else DELTAS, []
    for petl in ({}, dict(attention=None)):
        model = host.build(deltas, petl=petl).double().train()
        trained = [p for p in model.backbone.parameters() if p.requires_grad]
        with sdpa_kernel(SDPBackend.MATH):
            grads = torch.autograd.grad(loss(model, x.double()), trained, create_graph=True)
            results.append(torch.autograd.grad(sum(g.square().sum() for g in grads), trained))
    for ours, theirs in zip(*results, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8 * float(theirs.abs().max()))


# Hooks

MANY = dict(
    lora=dict(type='LoRA', rank=2),
    patt=dict(type='PATT', d_bottle=4),
    proj=dict(type='LoRA', at='proj', rank=2),
    fc1=dict(type='LoRA', at='fc1', rank=2),
    fc2=dict(type='LoRA', at='fc2', rank=2),
    adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5),
    behind=dict(type='AdaptMLP', d_bottle=4, scale=0.5, mode='sequential'),
    outside=dict(type='AdaptMLP', d_bottle=4, scale=0.5, source='residual'),
)
# VideoMAE's own attention does not call qkv, so that nothing can be hooked or hosted there
FEWER = {n: spec for n, spec in MANY.items() if n not in ('lora', 'patt')}


def captured(model: nn.Module, x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """What a forward hook on each module below the backbone gets in each call, and a copy made at that moment."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def hook(name: str):
        def note(module: nn.Module, args: tuple, y: Tensor) -> None:
            if isinstance(y, Tensor):
                seen.setdefault(name, []).append((y, y.detach().clone()))

        return note

    handles = [m.register_forward_hook(hook(n)) for n, m in model.backbone.named_modules() if n]
    last(model, x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', HOSTS)
def test_hooks_see_the_plain_paths_activations_and_they_stay(name, training):
    host, x = HOSTS[name]
    deltas = FEWER if name == 'videomae' else MANY
    plain = host.build(deltas, petl=dict(attention=None)).train(training)
    model = host.build(deltas).train(training)
    with torch.set_grad_enabled(training):
        expected, ours, alone = captured(plain, x), captured(model, x), last(model, x)
    parts = [f'{host.block.format(i)}.{path}'.rstrip('.') for i in range(2) for path in ('', *host.below.values())]
    hooked = {p.removeprefix('backbone.') for p in parts}
    hooked |= {n for n, m in model.backbone.named_modules() if isinstance(m, (nn.Linear, nn.LayerNorm)) and n in ours}
    for part in hooked - ({p for p in hooked if p.endswith('qkv')} if name == 'videomae' else set()):
        assert len(ours[part]) == len(expected[part]), part
        for (later, then), (_, theirs) in zip(ours[part], expected[part], strict=True):
            assert torch.equal(later, then), part
            torch.testing.assert_close(later, theirs, atol=1e-5, rtol=1e-4, msg=part)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(last(model, x), alone)
    assert all(torch.equal(later, then) for calls in ours.values() for later, then in calls)


@pytest.mark.parametrize('name', HOSTS)
def test_full_backward_hooks(name):
    host, x = HOSTS[name]
    grads, seen = [], []
    for hooked in (False, True):
        model = host.build(MANY).train()
        if hooked:
            for module in model.backbone.modules():
                module.register_full_backward_hook(lambda m, to_input, to_output: seen.append(m))
        loss(model, x).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and seen
    for key, grad in grads[0].items():
        torch.testing.assert_close(grads[1][key], grad, atol=1e-5 * float(grad.abs().max()), rtol=1e-4, msg=key)


def test_a_global_hook_sees_what_lasts():
    host, x = HOSTS['swin3d']
    model, seen = host.build(MANY), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, args, y: seen.append((y, y.clone())) if isinstance(y, Tensor) else None
    )
    try:
        with torch.no_grad():
            model.backbone(x)
    finally:
        handle.remove()
    assert seen and all(torch.equal(later, then) for later, then in seen)
