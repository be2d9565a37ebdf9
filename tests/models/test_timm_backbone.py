"""timm's models as backbones: features as timm's own classifier sees them, of images and of clips."""

from __future__ import annotations

import sys
from pathlib import Path

import foreign
import pytest
import timm
import torch
from tiny import randomised, refused

from vpetl_mm import build_model
from vpetl_mm.models.build import init_model
from vpetl_mm.models.features import Features, pooled
from vpetl_mm.models.timm_backbone import TimmBackbone

REAL = Path(__file__).parents[2].parent / 'shared/data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors'
SMALL = foreign.timm_backbone()
PLAIN = dict(deltas={})


def backbone(name: str = 'vit_tiny_patch16_224', **options) -> TimmBackbone:
    config = foreign.timm_backbone(name, **options)
    return randomised(TimmBackbone(**{k: v for k, v in config.items() if k != 'type'}), std=0.1).eval()


@pytest.mark.parametrize('name', foreign.TIMM)
def test_features_are_what_timms_own_classifier_sees(name):
    ours = backbone(name)
    own = timm.create_model(name, num_classes=7, img_size=ours.sides, **foreign.TIMM[name]).eval()
    missing, unknown = own.load_state_dict(ours.model.state_dict(), strict=False)
    assert not unknown and {n.rpartition('.')[0] for n in missing} <= {'head', 'head.fc'}
    classifier, seen = own.get_classifier(), []
    classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = torch.randn(2, 3, *ours.sides)
    with torch.no_grad():
        own(x)
        torch.testing.assert_close(ours(x)[0], seen[0])


def test_a_clip_is_its_frames():
    ours, clips = backbone(), torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        seen = ours(clips)
        assert seen.shape == (2, foreign.D, 3, 1, 1)
        for frame in range(3):
            torch.testing.assert_close(seen[:, :, frame, 0, 0], ours(clips[:, :, frame])[0])


def test_deltas_are_told_how_many_frames_follow_each_other():
    ours, seen = backbone(), []
    ours.model.blocks[0].register_forward_hook(lambda *_: seen.append(ours.grid.frames))
    with torch.no_grad():
        ours(torch.randn(2, 3, 3, 32, 32))
        ours(torch.randn(2, 3, 32, 32))
    assert seen == [3, None]


def test_frames_are_pooled_in_the_head_which_learns_how():
    cfg = foreign.config(SMALL, clips=True, head=dict(temporal_pool='attention'), **PLAIN)
    model = build_model(cfg, init_weights=True).eval()
    assert model.plan.count()['by'] == dict(head=5 * (foreign.D + 1) + foreign.D)
    assert 'cls_head.pool.query' in model.plan.state_dict()
    mean = foreign.build(SMALL, clips=True, **PLAIN)
    mean.cls_head.linear.load_state_dict(model.cls_head.linear.state_dict())
    x = torch.randn(2, 1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), mean(x))  # at first


@pytest.mark.parametrize('clips', [False, True], ids=['images', 'clips'])
def test_cached_features_are_those_of_the_backbone(clips):
    model = foreign.build(SMALL, clips=clips, **PLAIN)
    x = torch.randn(2, *((1, 3, 4, 32, 32) if clips else (3, 32, 32)))
    head = model.cls_head if clips else model.head

    def own(inputs):
        feats = model.extract_feat(inputs)
        return feats[0] if clips else feats

    with torch.no_grad():
        cached = Features(pooled(own(x)))
        torch.testing.assert_close(head(own(cached)), head(own(x)))


# How it runs


def gradients(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    foreign.along(model.extract_feat(x)[-1]).backward()
    return {n: p.grad for n, p in model.plan.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'eva02_tiny_patch14_224', 'swin_tiny_patch4_window7_224'])
@pytest.mark.parametrize('checkpointed', [False, True], ids=['kept', 'checkpointed'])
@pytest.mark.parametrize('place', ['norm', 'residual'])
def test_fast_and_checkpointed_are_the_same(name, checkpointed, place):
    deltas = foreign.BAPAT | dict(
        adapter=dict(foreign.BAPAT['adapter'], source=place), lora=dict(type='LoRA', at='fc1', rank=2)
    )
    config = foreign.timm_backbone(name)
    models = [
        foreign.build(config, fast=False, deltas=deltas),
        foreign.build(dict(config, with_cp=checkpointed), fast=True, deltas=deltas),
    ]
    for model in models:
        for delta in model.plan.deltas():
            randomised(delta)
    x = torch.randn(2, 3, *models[0].backbone.sides)
    plain, fast = (gradients(model, x) for model in models)
    assert plain.keys() == fast.keys() and len(plain) > 10
    for key, value in plain.items():
        torch.testing.assert_close(fast[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_initialisation_is_timms_from_the_seed_alone():
    cfg, states = foreign.config(SMALL), []
    del cfg['randomness']
    for drawn in (1, 2):
        torch.manual_seed(drawn)
        model = build_model(cfg)
        init_model(model, 0)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    weights = states[0]['backbone.model.blocks.0.mlp.fc1.weight']
    assert weights.std() == pytest.approx(0.02, rel=0.1)  # trunc_normal_(std=.02), as in timm's ViT


# What it is told of inputs


@pytest.mark.parametrize(
    ('name', 'mean'), [('vit_small_patch14_dinov2', 123.675), ('vit_base_patch16_siglip_224.v2_webli', 127.5)]
)
def test_inputs_are_normalised_as_the_model_was_trained(name, mean):
    options = dict(embed_dim=foreign.D, depth=1, num_heads=2)
    cfg = foreign.config(dict(type='TimmBackbone', model=name, options=options), **PLAIN)
    model = build_model(cfg)
    assert model.data_preprocessor.mean.flatten()[0].item() == pytest.approx(mean)


# What is refused


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(model='vit_smal_patch14_dinov2'), ["'vit_small_patch14_dinov2'"]),
        (dict(model='vit_small_patch14_dinov2.lvd'), ["'lvd'", 'lvd142m']),
        (dict(model='hf-hub:timm/vit_tiny_patch16_224.augreg_in21k'), ['no model']),
        (dict(options=dict(deepth=3)), ['deepth', 'vit_tiny_patch16_224']),
        (dict(options=dict(checkpoint_path='x.pth')), ['checkpoint_path', 'model.base']),
        (dict(pretrained=True), ['pretrained', 'model.base']),
        (dict(img_size=50), ['50 x 50', '16 x 16', 'img_size']),
        (dict(model='hiera_tiny_224', img_size=112, options={}), ['Hiera', '112 x 112']),
        (dict(model='resnet18', img_size=None, options={}), ['ResNet', 'place table']),
        (dict(image_size=32), ["'image_size'", 'img_size']),
    ],
    ids=str,
)
def test_what_timm_does_not_build_is_said(options, said):
    with refused(*said):
        build_model(foreign.config({**SMALL, **options}), meta=True)


@pytest.mark.parametrize('shape', [(2, 3, 64, 64), (2, 3, 2, 64, 32)], ids=str)
def test_inputs_of_another_size_are_refused(shape):
    with refused(f'{shape[-2]} x {shape[-1]}', '32 x 32', 'img_size'):
        backbone()(torch.zeros(shape))


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with refused('pip install', '[timm]'):
        build_model(foreign.config(SMALL))


# The real model


@pytest.mark.skipif(not REAL.is_file(), reason='needs ../shared/data')
def test_the_real_vit_gives_what_it_gives_in_mmpretrain():
    size = dict(img_size=518)  # its own: the libraries resize a position embedding by different rules
    vit = dict(type='VisionTransformer', arch='dinov2-small', patch_size=14, layer_scale_init_value=1e-5, **size)
    configs = [
        foreign.config(vit, head=dict(in_channels=384), **PLAIN),
        foreign.config(
            dict(type='TimmBackbone', model='vit_small_patch14_dinov2', **size), head=dict(in_channels=384), **PLAIN
        ),
    ]
    for cfg, base in zip(configs, (dict(file=str(REAL), convert='dinov2'), dict(file=str(REAL))), strict=True):
        cfg['model']['base'] = base
    theirs, ours = (build_model(cfg, init_weights=True).eval() for cfg in configs)
    torch.nn.init.normal_(theirs.head.fc.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    ours.head.load_state_dict(theirs.head.state_dict())
    x = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs(x)
        assert logits.abs().max() > 0.5
        torch.testing.assert_close(ours(x), logits, rtol=0, atol=1e-5)
