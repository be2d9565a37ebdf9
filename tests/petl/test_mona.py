"""Mona on every kind of host by hand, its start, its dropout and its counts."""

from __future__ import annotations

import pytest
import streams
import timm
import tiny
import torch
import torch.nn.functional as F
from streams import STREAMS, Grid
from timm_hosts import HOSTS
from torch import Tensor, nn

from vpetl_mm.petl import Mona, adapt
from vpetl_mm.petl.grid import Grid as TokenGrid

SPEC = dict(type='Mona', d_bottle=4, kernels=[3, 7])


def adapted(delta: nn.Module, h: Tensor, grid: Grid) -> Tensor:
    """What Mona adds to the stream, with the convolutions one after the other."""
    w = dict(delta.named_parameters())

    def convolved(image: Tensor) -> Tensor:
        parts = [
            F.conv2d(image, w[f'depthwise.{i}.weight'], w[f'depthwise.{i}.bias'], padding=k // 2, groups=4)
            for i, k in enumerate((3, 7))
        ]
        image = image + (parts[0] + parts[1]) / 2
        return image + F.conv2d(image, w['pointwise.weight'], w['pointwise.bias'])

    normed = F.layer_norm(h, h.shape[-1:], w['norm.weight'], w['norm.bias'])
    p = (w['s1'] * normed + w['s2'] * h) @ w['down.weight'].T + w['down.bias']
    return F.gelu(streams.over_frames(p, grid, convolved)) @ w['up.weight'].T + w['up.bias']


@pytest.mark.parametrize('name', STREAMS)
def test_both_lie_on_the_stream(name):
    """Behind the attention's residual and behind the block, in the order of the image."""
    model, grid = streams.built(name, dict(mona=SPEC)), STREAMS[name].grid
    args, kwargs, y = streams.seen(name, model)
    own = {m.at: m for m in streams.last_block(model).modules() if isinstance(m, Mona)}
    plain, nothing = streams.plain_of(name, model), torch.zeros_like
    y_mlp = streams.by_hand(name, plain, args, kwargs, lambda h: adapted(own['between'], h, grid), nothing, nothing)
    torch.testing.assert_close(y, y_mlp + adapted(own['block'], y_mlp, grid), atol=1e-5, rtol=1e-5)


def test_start_and_count():
    for width in (128, 768):
        assert sum(p.numel() for p in Mona(width, TokenGrid()).parameters()) == 133 * width + 9_728
    delta = Mona(768, TokenGrid())
    assert (delta.s1 == 1e-6).all() and (delta.s2 == 1).all()
    assert 0.019 < delta.up.weight.std() < 0.021 and 0.019 < delta.down.weight.std() < 0.021
    with torch.device('meta'):
        swin_b = timm.models.SwinTransformer(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
        assert adapt(swin_b, dict(mona=dict(type='Mona')), train=[]).count()['trainable'] == 3_667_456


def test_dropout_is_in_front_of_up():
    """With every channel of the bottleneck dropped nothing but up's bias is left."""
    delta, x = tiny.randomised(Mona(8, TokenGrid(), d_bottle=4, dropout=0.999)), torch.randn(1, 4, 8)
    assert torch.equal(delta(x).value(), delta.up.bias.expand(1, 4, 8))
    assert not torch.equal(delta.eval()(x).value(), delta.up.bias.expand(1, 4, 8))


@pytest.mark.parametrize('kernels', [(), (3, 4), 3, (3, True)])
def test_wrong_kernels_are_refused(kernels):
    with tiny.refused('Mona kernels'):
        Mona(8, TokenGrid(), kernels=kernels)


def test_tokens_in_another_order_are_refused():
    with tiny.refused('Mona', 'HieraBlock'):
        adapt(HOSTS['hiera'].make(), dict(mona=SPEC), train=[])
