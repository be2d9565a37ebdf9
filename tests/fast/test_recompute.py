"""What is computed again in the backward pass: the same gradients, less kept."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext

import chosen
import pytest
import tiny
import torch
from steps import equal, keeping, last, near, step
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vpetl_mm.fast.recompute import note, recomputing
from vpetl_mm.measure.live_bytes import LiveBytes
from vpetl_mm.petl import layout_of

BAPAT = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))
EVERY = pytest.mark.parametrize('name', tiny.HOSTS)


def check_equal(model: nn.Module, x: Tensor, **how) -> None:
    equal(step(model, x, **how), step(keeping(model), x, **how))


@pytest.mark.parametrize('train', [['head'], ['all']], ids=str)
@EVERY
def test_gradients_are_the_same_bit_for_bit(name, train):
    host = tiny.HOSTS[name]
    prefix = dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=2), prompt=dict(type='Prompt', num_tokens=2))
    check_equal(host.build({**BAPAT, **prefix}, train).train(), host.sample(), backwards=2)


@EVERY
def test_with_what_spt_tunes(name, tmp_path):
    """Norms among it, whose output is corrected."""
    host = tiny.HOSTS[name]
    for seed in chosen.SEEDS:
        check_equal(chosen.tuned(host, tmp_path, seed=seed).train(), host.sample())


@EVERY
def test_in_bfloat16_where_one_layer_reads_each_norm(name):
    host = tiny.HOSTS[name]
    check_equal(host.build({}, ['all']).train(), host.sample(), amp=True)


@EVERY
def test_in_bfloat16_where_several_layers_read_a_norm(name):
    """Their gradients meet in bfloat16 instead of float32: the last bit may differ, and no more than that."""
    model, x = tiny.HOSTS[name].build(BAPAT, ['all']).train(), tiny.HOSTS[name].sample()
    ours, theirs = step(model, x, amp=True), step(keeping(model), x, amp=True)
    assert torch.equal(ours['y'], theirs['y'])
    near(ours, theirs, step(keeping(model), x))


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
def test_inside_activation_checkpointing(amp):
    model = tiny.tiny(BAPAT, ['head', 'norm'], depths=(2, 2), with_cp=True, drop_path_rate=0.4).train()
    check_equal(model, tiny.clip(2, (8, 32, 32)), amp=amp)


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


def test_one_output_read_twice_and_in_part_and_second_derivatives():
    results = []
    for on in (False, True):
        norm, fc, part = (tiny.randomised(m).double() for m in (nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(2, 6)))
        x = torch.ones(4, 6, dtype=torch.float64).cumsum(1).requires_grad_()
        with recomputing([norm]) if on else nullcontext():
            h = norm(norm(x))
            y = fc(h) * h + part(h[1:, 2:4]).sum(0) + fc(h.t().reshape(4, 6)).tanh()
        weights = [x, *norm.parameters(), *fc.parameters()]
        first = torch.autograd.grad(y.square().sum(), weights, create_graph=True)
        results.append((*first, *torch.autograd.grad(sum(g.square().sum() for g in first), weights)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


# How much is kept


def kept(run: Callable[[], Tensor]) -> int:
    """Bytes of the storages that a graph holds, counted from outside: what dies with it."""
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


@pytest.mark.parametrize('name', [name for name in tiny.HOSTS if name != 'swin2d'])
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
    more = keeping(model)
    assert kept(lambda: last(more.backbone(x))) - kept(lambda: last(model.backbone(x))) == sum(sizes)


def test_a_sum_that_is_noted_is_not_kept():
    a, b = torch.randn(50, 50), torch.randn(50, 50)

    def run(on: bool) -> Tensor:
        x = torch.ones(50, 50, requires_grad=True)
        with recomputing([]) if on else nullcontext():
            return x * note('sum', a + b, lambda: a + b)

    assert kept(lambda: run(False)) - kept(lambda: run(True)) == 50 * 50 * 4
