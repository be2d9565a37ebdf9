"""Convpass on every kind of host by hand, its start, its dropout and its count."""

from __future__ import annotations

import pytest
import streams
import tiny
import torch
import torch.nn.functional as F
from streams import STREAMS, Grid
from torch import Tensor, nn

from vpetl_mm.petl import Convpass, adapt
from vpetl_mm.petl.grid import Grid as TokenGrid

timm = pytest.importorskip('timm')
SPEC = dict(type='Convpass', d_bottle=4, scale=0.7)


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def bypass(delta: nn.Module, x: Tensor, grid: Grid, scale: float) -> Tensor:
    """s up(Q(conv(Q(down x))))."""
    w = dict(delta.named_parameters())
    h = quick_gelu(x @ w['down.weight'].T + w['down.bias'])
    h = streams.over_frames(h, grid, lambda image: F.conv2d(image, w['conv.weight'], w['conv.bias'], padding=1))
    return scale * (quick_gelu(h) @ w['up.weight'].T + w['up.bias'])


@pytest.mark.parametrize('name', STREAMS)
def test_both_lie_where_the_paper_says(name):
    """On patches in the order of the image, also where attention is in padded and shifted windows."""
    model, grid = streams.built(name, dict(bypass=SPEC)), STREAMS[name].grid
    args, kwargs, y = streams.seen(name, model)
    own = [m for m in streams.last_block(model).modules() if isinstance(m, Convpass)]
    beside = {m.at: lambda x, m=m: bypass(m, x, grid, 0.7) for m in own}
    plain = streams.plain_of(name, model)
    expected = streams.by_hand(name, plain, args, kwargs, torch.zeros_like, beside['between'], beside['mlp'])
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_start_and_count():
    for conv_init in ('identity', 'xavier'):
        delta = Convpass(768, TokenGrid(), conv_init=conv_init)
        assert sum(p.numel() for p in delta.parameters()) == 13_648
        image = torch.randn(1, 8, 5, 4)
        unchanged = torch.allclose(delta.conv(image), image)
        assert unchanged == (conv_init == 'identity')
        largest = delta.conv.weight.abs().max() if conv_init == 'xavier' else delta.down.weight.abs().max()
        bound = (6 / (2 * 8 * 9)) ** 0.5 if conv_init == 'xavier' else (6 / 776) ** 0.5
        assert 0.9 * bound < largest <= bound
    with torch.device('meta'):
        model = timm.models.VisionTransformer(embed_dim=768, depth=12, num_classes=0)
        assert adapt(model, dict(bypass=dict(type='Convpass')), train=[]).count()['trainable'] == 327_552


def test_drop_path_and_dropout_act_in_training_alone():
    x = torch.randn(400, 4, 8)
    delta = tiny.randomised(Convpass(8, TokenGrid(), dropout=0.0, drop_path=0.25))
    kept = (delta(x) != 0).flatten(1).any(1)
    assert 0.65 < kept.float().mean() < 0.85
    whole = delta.eval()(x).value()
    torch.testing.assert_close(delta.train()(x).mean(0), whole.mean(0), atol=0.5 * whole.std().item(), rtol=0)
    delta = tiny.randomised(Convpass(8, TokenGrid(), d_bottle=50))
    assert not torch.equal(delta(x).value(), delta(x).value())


def test_drop_path_grows_from_block_to_block_alike_at_both_places():
    model = timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2)
    adapt(model, dict(bypass=dict(SPEC, drop_path=0.2)), train=[])
    rates = [(m.drop.p, m.at) for b in model.blocks for m in b.modules() if isinstance(m, Convpass)]
    assert sorted(rates) == [(r, at) for r in (0.0, 0.1, 0.2) for at in ('between', 'mlp')]


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [(dict(conv_init='zero'), 'conv_init'), (dict(d_bottle=0), 'd_bottle'), (dict(drop_path=1), 'drop_path')],
)
def test_wrong_options_are_refused(wrong, words):
    with tiny.refused(words):
        Convpass(8, TokenGrid(), **wrong)


def test_a_shape_that_nothing_says_is_refused():
    with tiny.refused('Convpass', '6 patches'):
        Convpass(8, TokenGrid())(torch.randn(1, 6, 8))


@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
def test_with_activation_checkpointing(name):
    """The same gradients beside the MLP, with no tensor kept afterwards; between the branches it is refused."""
    host, grads = tiny.HOSTS[name], []
    spec = dict(bypass=dict(SPEC, at='mlp', dropout=0.0))
    for with_cp in (True, False):
        model = host.build(spec, with_cp=with_cp).train()
        y = model.backbone(host.sample().requires_grad_())
        (y[-1] if isinstance(y, tuple) else y).square().sum().backward()
        grads.append([p.grad for n, p in model.plan.named_parameters() if 'deltas' in n])
        assert not any(vars(m).get('noted') is not None for m in model.modules())
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected)
    with tiny.refused('with_cp', 'Convpass'):
        host.build(dict(bypass=SPEC), with_cp=True)
