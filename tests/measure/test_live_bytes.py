"""Bytes that are alive, against tensors of known sizes."""

from __future__ import annotations

import gc

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.measure.live_bytes import LiveBytes, alive_after_forward, loss_of

K = 4 * 1000  # bytes of 1000 numbers


def test_counts_from_making_to_end():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        assert (live.now, live.peak) == (K, K)
        b = a + 1
        c = torch.zeros(500, dtype=torch.float64)
        assert (live.now, live.peak) == (3 * K, 3 * K)
        del b
        assert (live.now, live.peak) == (2 * K, 3 * K)
        d = c.bfloat16()
        assert (live.now, live.peak) == (2 * K + 1000, 3 * K)
        del a, c, d
        assert (live.now, live.peak) == (0, 3 * K)


def test_a_storage_counts_once():
    with LiveBytes() as live:
        a = torch.zeros(10, 100)
        views = [a.view(-1), a.t(), a[2:5], a.detach(), a.expand(3, 10, 100), a.chunk(2)[1]]
        assert live.now == K
        a.add_(1)
        a[1].mul_(2)
        torch.add(a, 1, out=a)
        assert live.now == live.peak == K
        del a
        assert live.now == K, 'views hold it'
        del views
        assert live.now == 0


def test_what_is_freed_makes_room():
    with LiveBytes() as live:
        x = torch.zeros(1000)
        for _ in range(50):
            x = x + 1
        assert (live.now, live.peak) == (K, 2 * K)


def test_several_results_of_one_operation():
    with LiveBytes() as live:
        values, places = torch.zeros(10, 100).sort(dim=1)
        assert live.now == K + 2 * K  # 64-bit positions
        del values
        assert live.now == 2 * K
        del places
        assert live.now == 0


def test_only_what_is_made_inside_counts_until_it_ends():
    weight, x = torch.zeros(10, 100), torch.zeros(10, 100)
    with LiveBytes() as live:
        y = x + weight.view(10, 100)
        x.mul_(2)
        assert live.now == K
    outside = y + 1
    assert live.now == K
    del y
    assert live.now == 0 and len(outside) == 10


def test_what_autograd_keeps():
    x = torch.zeros(100, 10)
    weights = [torch.zeros(10, 10, requires_grad=True) for _ in range(3)]
    live = LiveBytes()
    with live:
        y = x
        for weight in weights:
            y = torch.tanh(y @ weight)  # the output is what tanh and the next product need
        loss = y.sum()
        assert live.now == 3 * K + 4
        loss.backward()
        gc.collect()
        assert live.now == K + 4 + 3 * 400  # y, the loss, gradients
    assert live.peak <= 5 * K + 4 + 3 * 400


@pytest.mark.parametrize('name', ['swin3d', 'vit'])
def test_the_loss_is_cross_entropy_of_the_first_class(name):
    host = tiny.HOSTS[name]
    model = host.build({}, ['all'])
    x = host.sample()
    expected = -tiny.classify(model, x).log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(loss_of(model, x), expected)


class Stack(nn.Module):
    """What alive_after_forward needs of a PETL model, of a size that arithmetic knows."""

    head_name = 'head'

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(64, 64), nn.Tanh())))
        self.head = nn.Linear(64, 5)
        self.recomputing = torch.enable_grad


def test_what_a_forward_pass_leaves_is_arithmetic():
    model, x = Stack(), torch.zeros(100, 64)
    kept = 3 * 100 * 64  # the outputs of tanh
    logits, target = 100 * 5, 2 * 100  # log-softmax keeps its output; 64-bit classes
    left = alive_after_forward(model, x)
    assert left == pytest.approx(4 * (kept + logits + target), abs=16)  # the loss and its weight
    # in bfloat16 there are copies of weights, biases and input as well
    copies = 3 * (64 * 64 + 64) + 5 * 64 + 5 + 100 * 64
    half = alive_after_forward(model, x, mixed=True)
    assert half == pytest.approx(2 * (kept + copies) + 4 * (logits + target), abs=16)


def test_a_backbone_that_is_frozen_leaves_little():
    x = tiny.clip(2, (4, 32, 32))
    models = [build_model(tiny.config({}, train)) for train in (['head'], ['all'])]
    for model in models:
        alive_after_forward(model, x)  # masks and orders are made once for all
    probe, full = (alive_after_forward(model, x) for model in models)
    assert probe < full / 20
    assert alive_after_forward(models[1], torch.cat([x, x])) == pytest.approx(2 * full, rel=0.1)


def test_gradients_and_weights_are_left_alone():
    model, x = build_model(tiny.config({}, ['all'], seed=0)), tiny.clip(2, (4, 32, 32))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    alive_after_forward(model, x)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert F.mse_loss(x, tiny.clip(2, (4, 32, 32))) == 0
