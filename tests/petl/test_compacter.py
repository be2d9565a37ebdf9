"""Compacter with Kronecker products written out, the factors that all adapters share, its start and its counts."""

from __future__ import annotations

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
from tiny import HOSTS, features
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import adapt

SPEC = dict(type='Compacter', n=2, d_bottle=4)


def vit(depth: int = 12) -> nn.Module:
    """ViT-B; without values where there are many blocks."""
    with torch.device('cpu' if depth == 1 else 'meta'):
        return timm.models.VisionTransformer(embed_dim=768, depth=depth, num_classes=0)


def count(**options) -> int:
    with torch.device('meta'):
        return adapt(vit(), dict(comp=dict(type='Compacter', **options)), train=[]).count()['trainable']


def hypercomplex(x: Tensor, A: Tensor, w: dict[str, Tensor], layer: str) -> Tensor:
    """x H + b, H the sum of n Kronecker products."""
    B = (
        [s @ t for s, t in zip(w[f'{layer}.s'], w[f'{layer}.t'], strict=True)]
        if f'{layer}.s' in w
        else w[f'{layer}.B']
    )
    return x @ sum(torch.kron(a, b) for a, b in zip(A, B, strict=True)) + w[f'{layer}.b']


@pytest.mark.parametrize('rank', [1, 2, None])
@pytest.mark.parametrize('name', ['swin3d', 'vit'])
@torch.no_grad()
def test_it_lies_behind_attention_and_mlp_in_front_of_the_residual(name, rank):
    """Of a block with two adapters, from the outputs of its attention and its MLP without them."""
    host = HOSTS[name]
    model = host.build(dict(comp=dict(SPEC, rank=rank)))
    block, A = host.blocks(model)[0], model.backbone.deltas.comp.A
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    for place in ('proj', 'mlp'):
        part = host.part(block, place)
        w = dict(part.deltas.comp.named_parameters())
        plain = host.part(host.blocks(host.build(seed_weights=1))[0], place)
        plain.load_state_dict({k: v for k, v in part.state_dict().items() if 'deltas' not in k})
        plain.add_identity = part.add_identity = False  # of mmcv's FFN
        y = plain(x)
        h = F.gelu(hypercomplex(y, A, w, 'down'), approximate='tanh')
        torch.testing.assert_close(part(x), y + hypercomplex(h, A, w, 'up'), atol=1e-5, rtol=1e-5)


def test_stages_of_several_widths_share_the_factors():
    """Once in the state and once in the count; its gradient is the sum over all adapters."""
    host = HOSTS['swin2d']
    arch = dict(embed_dims=16, depths=[1, 1], num_heads=[2, 4])
    cfg = host.config(dict(comp=SPEC), train=[], arch=arch, out_indices=(1,))
    cfg['model']['head'] = dict(cfg['model']['head'], in_channels=32)
    model = tiny.randomised(build_model(cfg))
    names = [n for n, _ in model.plan.named_parameters() if n.endswith('.A')]
    assert names == ['backbone.deltas.comp.A']
    widths = 2 * (2 * (16 + 4) + 4 + 16) + 2 * (2 * (32 + 4) + 4 + 32)
    assert model.plan.count()['by']['comp'] == 8 + widths
    y = model.backbone(host.sample())[-1]
    y.square().mean().backward()
    assert model.backbone.deltas.comp.A.grad.any(dim=-1).all()


def test_start_and_counts():
    assert count() == 57_024 + 64
    assert count(at='mlp') == 28_512 + 64
    model = vit(depth=1)
    adapt(model, dict(comp=dict(type='Compacter')), train=[])
    assert 0.7e-4 < model.deltas.comp.A.std() < 1.3e-4
    own = model.blocks[0].mlp.deltas.comp
    bound = 2**0.5 * (6 / (192 + 1)) ** 0.5
    assert 0.95 * bound < own.down.s.abs().max() <= bound and not own.down.b.any() and not own.up.b.any()


def test_it_starts_very_nearly_as_the_plain_model():
    host = HOSTS['vit']
    model = build_model(host.config(dict(comp=SPEC), seed=0), init_weights=True).eval()
    plain = build_model(host.config(seed=0), init_weights=True).eval()
    difference = (features(model, host.sample()) - features(plain, host.sample())).abs().max()
    assert 0 < difference < 1e-5


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        (dict(d_bottle=6), ('n=4', '768', '6')),
        (dict(n=5), ('n=5', '768', '25')),
        (dict(rank=0), ('rank',)),
        (dict(n=0), ('n must',)),
    ],
)
def test_what_does_not_fit_is_refused(wrong, words):
    with tiny.refused(*words):
        adapt(vit(), dict(comp=dict(type='Compacter', **wrong)), train=[])


def test_the_default_is_rounded_up_where_n_does_not_divide_it():
    model = build_model(HOSTS['vit'].config(dict(comp=dict(type='Compacter'))))
    assert {len(m.down.b) for m in model.plan.deltas()} == {4}  # of a width of 16
