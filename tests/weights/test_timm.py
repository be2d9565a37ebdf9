"""Files of timm's models, under the names and in the sizes that people have them, against timm's own layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import tiny
import torch
from mmpretrain.models.backbones import TIMMBackbone
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from vpetl_mm import UserError
from vpetl_mm.models.timm_backbone import TimmBackbone
from vpetl_mm.weights.base import base_state, load_base

REAL = Path(__file__).parents[3] / 'shared/data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors'
SMALL = dict(embed_dim=16, depth=2, num_heads=2)
SWIN = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
HIERA = dict(embed_dim=8, num_heads=1, stages=(1, 1), q_pool=1)
# name -> timm's model, the side of its images, and what makes it small
MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    'vit': ('vit_tiny_patch16_224', 32, SMALL),
    'registers': ('vit_small_patch14_reg4_dinov2', 28, SMALL),
    'siglip': ('vit_base_patch16_siglip_224', 32, SMALL),
    'eva02': ('eva02_tiny_patch14_224', 28, SMALL),
    'dinov3': ('vit_small_patch16_dinov3', 32, SMALL),
    'swin': ('swin_tiny_patch4_window7_224', 32, SWIN),
    'hiera': ('hiera_tiny_224', 64, HIERA),
}
MODEL = pytest.mark.parametrize('name', MODELS)


def whole(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    """timm's model with a classifier, its parameters random, as people train it."""
    model, side, options = MODELS[name]
    options = dict(options, img_size=side, num_classes=5, **changes)
    return tiny.randomised(timm.create_model(model, **options), seed).eval()


def backbone(name: str, side: int | None = None, **changes: Any) -> TimmBackbone:
    model, own, options = MODELS[name]
    return tiny.randomised(TimmBackbone(model, side or own, dict(options, **changes)), 9).eval()


def features(model: nn.Module, side: int) -> Tensor:
    """What timm's classifier sees of an image."""
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.forward_head(model.forward_features(image), pre_logits=True)


WAYS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    'safetensors': dict,
    'pth': dict,
    'half': lambda state: {k: v.half() for k, v in state.items()},
    'trained here': lambda state: {f'backbone.timm_model.{k}': v for k, v in state.items()},
    "a trainer's": lambda state: dict(model={f'module.{k}': v for k, v in state.items()}, epoch=3),
}


@MODEL
@pytest.mark.parametrize('way', WAYS)
def test_the_features_are_those_of_the_model_that_was_saved(name, way, warned):
    source, side = whole(name), MODELS[name][1]
    content = WAYS[way](source.state_dict())
    file = 'a.safetensors' if way in ('safetensors', 'half') else 'a.pth'
    (save_file if file.endswith('safetensors') else torch.save)(content, file)
    loaded = backbone(name)
    assert not torch.allclose(features(loaded.model, side), features(source, side))
    load_base(loaded, dict(file=file))
    torch.testing.assert_close(
        features(loaded.model, side), features(source, side), **(dict(rtol=0.02, atol=0.02) if way == 'half' else {})
    )
    assert len(warned) == 1 and 'head' in warned[0] and 'not of the backbone' in warned[0]


def test_mmpretrains_wrapper_of_timm_and_the_meta_device():
    source = whole('vit')
    save_file(source.state_dict(), 'a.safetensors')
    wrapper = TIMMBackbone('vit_tiny_patch16_224', img_size=32, **SMALL)
    load_base(wrapper, dict(file='a.safetensors'))
    assert torch.equal(wrapper.timm_model.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)
    on_meta = base_state(backbone('vit').to('meta'), dict(file='a.safetensors'))
    assert {k.removeprefix('model.') for k in on_meta} == {k for k in source.state_dict() if not k.startswith('head')}


@pytest.mark.parametrize('name', ['vit', 'registers', 'siglip'])
def test_another_size_of_image_resizes_the_position_embedding(name):
    source, side = whole(name), MODELS[name][1]
    save_file(source.state_dict(), 'a.safetensors')
    loaded = backbone(name, 2 * side)
    load_base(loaded, dict(file='a.safetensors'))
    prefix = 0 if source.no_embed_class else source.num_prefix_tokens
    wanted = resample_abs_pos_embed(source.pos_embed.detach(), [4, 4], [2, 2], num_prefix_tokens=prefix)
    torch.testing.assert_close(loaded.model.pos_embed.detach(), wanted)


def test_another_window_of_a_swin_and_another_patch():
    save_file(whole('swin').state_dict(), 'a.safetensors')
    loaded = backbone('swin', 32, window_size=8)
    load_base(loaded, dict(file='a.safetensors'))
    table = loaded.model.layers[0].blocks[0].attn.relative_position_bias_table
    assert table.shape == (225, 1) and not torch.allclose(table, backbone('swin', 32, window_size=8).state_dict()[
        'model.layers.0.blocks.0.attn.relative_position_bias_table'])  # fmt: skip
    save_file(whole('vit').state_dict(), 'b.safetensors')
    finer = backbone('vit', 32, patch_size=8)
    load_base(finer, dict(file='b.safetensors'))
    assert finer.model.patch_embed.proj.weight.shape[-1] == 8


def test_authors_names_of_dinov3():
    """Meta's own file: storage_tokens, ls1.gamma, and one bias whose part for k is zero."""
    source = whole('dinov3')
    state, theirs = (
        source.state_dict(),
        {'storage_tokens': source.reg_token.detach(), 'mask_token': torch.zeros(1, 16)},
    )
    for name, value in state.items():
        if not name.startswith(('head', 'reg_token')):
            theirs[name.replace('gamma_1', 'ls1.gamma').replace('gamma_2', 'ls2.gamma')] = value
    torch.save(theirs, 'a.pth')
    loaded = backbone('dinov3')
    load_base(loaded, dict(file='a.pth'))
    torch.testing.assert_close(features(loaded.model, 32), features(source, 32))


@pytest.mark.skipif(not REAL.is_file(), reason=f'{REAL} is not there')
def test_the_real_vit_s():
    loaded = TimmBackbone('vit_small_patch14_dinov2', 98)
    load_base(loaded, dict(file=str(REAL)))
    own = load_file(REAL)
    assert torch.equal(loaded.model.blocks[11].mlp.fc2.weight, own['blocks.11.mlp.fc2.weight'].float())
    assert loaded.model.pos_embed.shape == (1, 50, 384)


# What does not fit


def refused(model: nn.Module, file: str, *words: str, **base: Any) -> str:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with tiny.refused(file, *words) as error:
        load_base(model, dict(base, file=file))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return str(error.value)


OTHERS = [
    ('vit', 'eva02', "a ViT in timm's naming of width 16 and 2 blocks", 'timm.Eva of width 16'),
    ('swin', 'vit', 'a Swin of width 8 and 2 blocks', 'timm.VisionTransformer of width 16 and 2 blocks'),
    ('eva02', 'dinov3', "timm's EVA-02 or DINOv3", ''),
    ('hiera', 'swin', 'a Hiera of width 8 and 2 blocks', 'timm.SwinTransformer of width 8'),
]


@pytest.mark.parametrize(('file', 'model', 'looks', 'own'), OTHERS)
def test_weights_of_another_model_are_named(file, model, looks, own):
    save_file(whole(file).state_dict(), 'a.safetensors')
    said = refused(backbone(model), 'a.safetensors', own)
    assert f'it looks like {looks}' in said or 'does not match the backbone' in said


def test_another_depth_a_missing_and_a_broken_tensor():
    state = whole('vit').state_dict()
    save_file(state, 'a.safetensors')
    refused(backbone('vit', depth=3), 'a.safetensors', 'it looks like', 'of width 16 and 2 blocks', 'and 3 blocks')
    refused(backbone('vit'), 'a.safetensors', "convert='timm_vit' is for mmpretrain", convert='timm_vit')
    save_file({k: v for k, v in state.items() if k != 'blocks.1.norm2.bias'}, 'b.safetensors')
    refused(backbone('vit'), 'b.safetensors', 'missing: blocks.1.norm2.bias')
    save_file({**state, 'blocks.1.norm2.bias': torch.full((16,), float('nan'))}, 'c.safetensors')
    refused(backbone('vit'), 'c.safetensors', 'not finite: blocks.1.norm2.bias')
    save_file({**state, 'pos_embed': torch.ones(1, 4, 16)}, 'd.safetensors')  # three patches and a class
    refused(backbone('vit'), 'd.safetensors')
    save_file({**state, 'extra.weight': torch.ones(1)}, 'e.safetensors')
    refused(backbone('vit'), 'e.safetensors', 'left over: extra.weight')


@pytest.mark.parametrize(
    'state', [{'patch_embed.proj.weight': torch.ones(2)}, {'pos_embed': torch.ones(3)}, {'mask_token': torch.ones(1)}]
)
def test_what_timms_functions_fall_over(state):
    for name in ('vit', 'eva02', 'swin', 'hiera'):
        torch.save({**whole(name).state_dict(), **state}, 'a.pth')
        try:
            load_base(backbone(name), dict(file='a.pth'))
        except UserError as error:
            assert '\n' not in str(error) and str(error).startswith('a.pth')
        else:
            assert 'mask_token' in state or name == 'hiera' or 'pos_embed' in state, name
