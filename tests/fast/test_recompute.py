"""What is made again in the backward pass: the same gradients, less kept."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext

import chosen
import pytest
import tiny
import torch
from gradients import around, equal, gradients
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from vpetl_mm.models.recompute import note, recomputing

from vpetl_mm.petl import layout_of

BAPAT = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))
HOSTS = [name for name in tiny.HOSTS if name != 'swin2d']


@pytest.mark.parametrize('train', [['head'], ['all']], ids=str)
@pytest.mark.parametrize('name', tiny.HOSTS)
def test_gradients_are_the_same_to_the_bit(name, train):
    host = tiny.HOSTS[name]
    prefix = dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=2), prompt=dict(type='Prompt', num_tokens=2))
    model = host.build({**BAPAT, **prefix}, train).train()
    x = host.sample()
    equal(gradients(model, x, True), gradients(model, x, False))


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_with_what_spt_tunes(name, tmp_path):
    """Norms among it, whose output is corrected."""
    host = tiny.HOSTS[name]
    for seed in chosen.SEEDS:
        model = chosen.tuned(host, tmp_path, seed=seed).train()
        equal(gradients(model, host.sample(), True), gradients(model, host.sample(), False))


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_in_bfloat16_where_one_layer_reads_each_norm(name):
    model = tiny.HOSTS[name].build({}, ['all']).train()
    x = tiny.HOSTS[name].sample()
    equal(gradients(model, x, True, amp=True), gradients(model, x, False, amp=True))


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_in_bfloat16_where_several_layers_read_a_norm(name):
    """Their gradients meet in bfloat16 in place of float32: the last bit may be another, and no more than that."""
    model = tiny.HOSTS[name].build(BAPAT, ['all']).train()
    x = tiny.HOSTS[name].sample()
    exact, ours, theirs = (gradients(model, x, on, amp) for on, amp in ((False, False), (True, True), (False, True)))
    assert torch.equal(ours['y'], theirs['y'])
    for key, value in exact.items():
        errors = [(grads[key] - value).norm() / (value.norm() + 1e-6) for grads in (ours, theirs)]
        assert errors[0] <= 2 * errors[1] + 2**-8, (key, errors)


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
def test_inside_activation_checkpointing(amp):
    model = tiny.tiny(BAPAT, ['head', 'norm'], depths=(2, 2), with_cp=True, drop_path_rate=0.4).train()
    x = tiny.clip(2, (8, 32, 32))
    equal(gradients(model, x, True, amp), gradients(model, x, False, amp))


def test_around_activation_checkpointing():
    norm, fc = (tiny.randomised(m) for m in (nn.LayerNorm(6), nn.Linear(6, 6)))
    results = []
    for on in (False, True):
        x = torch.ones(4, 6).cumsum(1).requires_grad_()
        with recomputing([norm]) if on else nullcontext():
            y = checkpoint(lambda t: fc(norm(t)).tanh(), norm(x), use_reentrant=False)
        results.append(torch.autograd.grad(y.sum(), [x, *norm.parameters(), *fc.parameters()]))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_two_backward_passes():
    model = tiny.tiny(BAPAT, ['all'])
    x = tiny.clip()
    equal(gradients(model, x, True, backwards=2), gradients(model, x, False, backwards=2))


def test_one_output_read_twice_and_in_part():
    results = []
    for on in (False, True):
        norm, fc, part = (tiny.randomised(m) for m in (nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(2, 6)))
        x = torch.ones(4, 6).cumsum(1).requires_grad_()
        with recomputing([norm]) if on else nullcontext():
            h = norm(norm(x))
            y = fc(h) * h + part(h[1:, 2:4]).sum(0) + fc(h.t().reshape(4, 6)).tanh()
        results.append(torch.autograd.grad(y.square().sum(), [x, *norm.parameters(), *fc.parameters()]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives():
    results = []
    for on in (False, True):
        norm, fc = (tiny.randomised(m).double() for m in (nn.LayerNorm(6), nn.Linear(6, 6)))
        x = torch.ones(4, 6, dtype=torch.float64).cumsum(1).requires_grad_()
        with recomputing([norm]) if on else nullcontext():
            y = fc(norm(x)).tanh()
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), [x, fc.weight, norm.weight]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


# How much is kept


def kept(run: Callable[[], Tensor]) -> int:
    """Bytes of the storages that a graph holds, counted from outside: what dies with it."""
    from vpetl_mm.measure.live_bytes import LiveBytes

    run()  # masks, biases and orders are made once for all
    live = LiveBytes()
    with live:
        y = run()
        del y
        gc.collect()
        before = live.now
        y = run()
        return live.now - before - y.nbytes


def test_the_outputs_of_norms_are_not_kept():
    norms = [nn.LayerNorm(64) for _ in range(3)]
    linears = [nn.Linear(64, 64) for _ in range(3)]

    def run(on: bool) -> Tensor:
        x = torch.randn(100, 64)
        with recomputing(norms) if on else nullcontext():
            for norm, fc in zip(norms, linears, strict=True):
                x = x + fc(norm(x))
        return x

    size = 100 * 64 * 4
    assert kept(lambda: run(False)) - kept(lambda: run(True)) == 3 * size


@pytest.mark.parametrize('name', HOSTS)
def test_a_backbone_keeps_less_by_its_norms(name):
    host = tiny.HOSTS[name]
    model = host.build(BAPAT, ['all']).train()
    x, sizes = tiny.clip(4, (4, 32, 32)) if name == 'swin3d' else host.sample(4), []
    norms = list(layout_of(model.backbone).norms(model.backbone))
    handles = [n.register_forward_hook(lambda m, args, y: sizes.append(y.nbytes)) for n in norms]
    model.backbone(x)
    for handle in handles:
        handle.remove()
    assert len(sizes) == len(norms) == 4

    def run(on: bool) -> Tensor:
        with around(model, on):
            y = model.backbone(x)
        return y[-1] if isinstance(y, tuple) else y

    assert kept(lambda: run(False)) - kept(lambda: run(True)) == sum(sizes)


def test_a_sum_that_is_noted_is_not_kept():
    a, b = torch.randn(50, 50), torch.randn(50, 50)

    def run(on: bool) -> Tensor:
        x = torch.ones(50, 50, requires_grad=True)
        with recomputing([]) if on else nullcontext():
            return x * note('sum', a + b, lambda: a + b)

    assert kept(lambda: run(False)) - kept(lambda: run(True)) == 50 * 50 * 4
