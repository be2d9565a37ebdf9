"""Adapter+ behind the blocks of every kind of host, its scales, its drop-path and its count."""

from __future__ import annotations

import pytest
import streams
import timm
import tiny
import torch
import torch.nn.functional as F
from streams import STREAMS
from timm_hosts import HOSTS, plain

from vpetl_mm.petl import AdapterPlus, adapt

SPEC = dict(type='AdapterPlus', d_bottle=4)


@pytest.mark.parametrize('name', STREAMS)
def test_it_lies_behind_the_block(name):
    model = streams.built(name, dict(plus=SPEC))
    args, kwargs, y = streams.seen(name, model)
    w = dict(streams.last_block(model).deltas.plus.named_parameters())
    nothing = torch.zeros_like
    h = streams.by_hand(name, streams.plain_of(name, model), args, kwargs, nothing, nothing, nothing)
    up = F.gelu(h @ w['down.weight'].T + w['down.bias']) @ w['up.weight'].T + w['up.bias']
    torch.testing.assert_close(y, h + w['scale'] * up, atol=1e-5, rtol=1e-5)


def test_where_the_width_grows_it_is_as_wide_as_the_output():
    model = plain('hiera')
    adapt(model, dict(plus=SPEC), train=[])
    assert [b.deltas.plus.up.out_features for b in model.blocks] == [24, 48, 96, 192]
    assert torch.isfinite(HOSTS['hiera'].out(model)).all()


def test_start_and_count():
    delta = AdapterPlus(768)
    assert sum(p.numel() for p in delta.parameters()) == 13_832
    for weight in (delta.down.weight, delta.up.weight):
        assert 0.008 < weight.std() < 0.01 and weight.abs().max() <= 0.02
    with torch.device('meta'):
        model = timm.models.VisionTransformer(embed_dim=768, depth=12, num_classes=0)
        assert adapt(model, dict(plus=dict(type='AdapterPlus')), train=[]).count()['trainable'] == 165_984


@pytest.mark.parametrize(('learn_scale', 'shape'), [('channel', (8,)), (True, ()), (False, None)])
def test_the_strength_starts_at_scale(learn_scale, shape):
    delta, x = AdapterPlus(8, scale=0.5, learn_scale=learn_scale), torch.randn(2, 3, 8)
    trained = dict(delta.named_parameters()).get('scale')
    assert (trained is None) if shape is None else (trained.shape == shape and (trained == 0.5).all())
    whole = delta.up(F.gelu(delta.down(x)))
    torch.testing.assert_close(delta(x).value(), 0.5 * whole)


def test_drop_path_is_the_same_in_all_blocks():
    model = timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2)
    adapt(model, dict(plus=dict(SPEC, drop_path=0.25)), train=[])
    assert [b.deltas.plus.drop.p for b in model.blocks] == [0.25] * 3
    delta, x = tiny.randomised(model.blocks[0].deltas.plus), torch.randn(400, 2, 16)
    kept = (delta(x) != 0).flatten(1).any(1)
    assert 0.65 < kept.float().mean() < 0.85
    whole = delta.eval()(x).value()
    torch.testing.assert_close(delta.train()(x).sum() / whole.sum(), torch.tensor(1.0), atol=0.15, rtol=0)


def test_wrong_options_are_refused():
    with tiny.refused('learn_scale', "'channel'"):
        AdapterPlus(8, learn_scale='row')
    with tiny.refused('AdapterPlus act', 'QuickGELU'):
        AdapterPlus(8, act='Swish')
