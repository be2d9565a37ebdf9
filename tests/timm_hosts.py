"""Small backbones of timm, torchvision and OpenCLIP, and the names of their parts, written down by hand."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import tiny
import torch
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

D, HEADS, CLASSES = 24, 2, 5  # the width, of the first stage where there are stages
IMAGE = (3, 32, 32)
VIT = dict(depth=2, embed_dim=D, num_heads=HEADS, img_size=32, patch_size=8, num_classes=CLASSES)


@dataclass(frozen=True)
class TimmHost:
    """A small model.

    Args:
        make: builds it.
        blocks: paths of its blocks.
        attn: of the attention, below a block.
        qkv: what its projection is called below the attention: one layer, three, or a parameter.
        proj, fc1, fc2: paths of the other linear layers below a block; fc1 may be two.
        head: paths of the head.
        size: of an input.
        tokens: whether further tokens can pass through the blocks.
        ordered: whether its keys are in the order of its tokens.
        inputs: further arguments of the model.
    """

    make: Callable[[], nn.Module]
    blocks: tuple[str, ...] = ('blocks.0', 'blocks.1')
    attn: str = 'attn'
    qkv: tuple[str, ...] = ('qkv',)
    proj: str = 'attn.proj'
    fc1: tuple[str, ...] = ('mlp.fc1',)
    fc2: str = 'mlp.fc2'
    head: tuple[str, ...] = ('head',)
    size: tuple[int, ...] = IMAGE
    tokens: bool = True
    ordered: bool = True
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def qkv_host(self) -> str:
        """The path below a block of what holds the deltas on q, k and v: the one layer, or the attention."""
        one_layer = self.qkv == ('qkv',)
        return f'{self.attn}.qkv' if one_layer else self.attn

    def sample(self, batch: int = 2) -> Tensor:
        """Random images."""
        return torch.randn(batch, *self.size, generator=torch.Generator().manual_seed(1))

    def out(self, model: nn.Module, batch: int = 2) -> Tensor:
        """The output for :meth:`sample`."""
        return model(self.sample(batch), **self.inputs)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **{**VIT, **options})


def _naflex(**options: Any) -> Callable[[], nn.Module]:
    sizes = {k: v for k, v in VIT.items() if k != 'img_size'}
    return lambda: timm.create_model('naflexvit_base_patch16_gap', **{**sizes, **options})


def _swin() -> nn.Module:
    stages = dict(depths=(2, 1), embed_dim=D, num_heads=(2, 4), window_size=4)
    # 9 x 9 tokens: the windows are padded
    return timm.create_model('swin_tiny_patch4_window7_224', img_size=36, num_classes=CLASSES, **stages)


def _hiera() -> nn.Module:
    stages = dict(stages=(1, 1, 1, 1), embed_dim=D, num_heads=2)
    return timm.create_model('hiera_tiny_224', img_size=64, num_classes=CLASSES, **stages)


def _torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer

    sizes = dict(image_size=32, patch_size=8, num_layers=2, num_heads=HEADS, hidden_dim=D, mlp_dim=2 * D)
    return VisionTransformer(**sizes, num_classes=CLASSES)


def _open_clip() -> nn.Module:
    from open_clip.transformer import VisionTransformer

    sizes = dict(image_size=32, patch_size=8, width=D, layers=2, heads=HEADS, mlp_ratio=2.0, output_dim=CLASSES)
    return VisionTransformer(**sizes, ls_init_value=0.5)


def _separate() -> nn.Module:
    model = _timm('eva02_tiny_patch14_224')()
    for block in model.blocks:  # adds the biases behind the layer
        block.attn.qkv_bias_separate = True
    return model


def _padded(model_size: int = 4) -> dict[str, Any]:
    """Patches of two images of 4 x 4, of which the second lacks its last five."""
    y, x = torch.meshgrid(torch.arange(model_size), torch.arange(model_size), indexing='ij')
    valid = torch.ones(2, model_size**2, dtype=torch.bool)
    valid[1, -5:] = False
    return dict(patch_coord=torch.stack([y, x], -1).flatten(0, 1).expand(2, -1, -1), patch_valid=valid)


APART, GATED = ('q_proj', 'k_proj', 'v_proj'), ('mlp.fc1_g', 'mlp.fc1_x')
PATCHES = (16, 3 * 8 * 8)
MHA = dict(qkv=('in_proj_weight',), proj='self_attention.out_proj')

HOSTS: dict[str, TimmHost] = {
    'vit': TimmHost(_timm('vit_tiny_patch16_224')),
    'vit_qk_norm': TimmHost(_timm('vit_tiny_patch16_224', qk_norm=True, qkv_bias=False, norm_layer='rmsnorm')),
    'dinov2': TimmHost(_timm('vit_small_patch14_reg4_dinov2', init_values=0.5)),
    'dinov2_giant': TimmHost(_timm('vit_giant_patch14_reg4_dinov2', init_values=0.5)),
    'siglip': TimmHost(_timm('vit_base_patch16_siglip_224')),
    'deit': TimmHost(_timm('deit_tiny_distilled_patch16_224'), head=('head', 'head_dist')),
    'clip': TimmHost(_timm('vit_base_patch32_clip_quickgelu_224')),
    'mae': TimmHost(_timm('vit_base_patch16_224.mae', global_pool='avg')),
    'res_post': TimmHost(_timm('vit_small_patch16_224', block_fn=ResPostBlock)),
    'diff': TimmHost(_timm('vit_small_patch16_224', attn_layer='diff')),
    'eva_post': TimmHost(_timm('eva02_tiny_patch14_224', use_post_norm=True), tokens=False),
    'eva02': TimmHost(_timm('eva02_tiny_patch14_224'), tokens=False),
    'eva02_apart': TimmHost(_timm('eva02_base_patch14_224'), qkv=APART, fc1=GATED, tokens=False),
    'eva02_separate': TimmHost(_separate, tokens=False),
    'dinov3': TimmHost(_timm('vit_small_patch16_dinov3.lvd1689m', init_values=0.5), tokens=False),
    'rope_mixed': TimmHost(_timm('vit_small_patch16_rope_mixed_224'), tokens=False),
    'swin': TimmHost(
        _swin,
        blocks=('layers.0.blocks.0', 'layers.0.blocks.1', 'layers.1.blocks.0'),
        head=('head.fc',),
        size=(3, 36, 36),
        tokens=False,
    ),
    'hiera': TimmHost(
        _hiera,
        blocks=tuple(f'blocks.{i}' for i in range(4)),
        head=('head.fc',),
        size=(3, 64, 64),
        tokens=False,
        ordered=False,
    ),
    'naflex': TimmHost(_naflex(), tokens=False),
    'naflex_padded': TimmHost(_naflex(class_token=True, reg_tokens=2), size=PATCHES, tokens=False, inputs=_padded()),
    'naflex_gated': TimmHost(
        _naflex(
            attn_type='rope', rope_type='axial', attn_gated=True, qk_norm=True, qkv_fused=False, class_token=True
        ),
        qkv=APART,
        tokens=False,
    ),
    'naflex_eva': TimmHost(_naflex(attn_type='eva', swiglu_mlp=True, init_values=0.5), tokens=False),
    'torchvision': TimmHost(
        _torchvision,
        blocks=('encoder.layers.encoder_layer_0', 'encoder.layers.encoder_layer_1'),
        attn='self_attention',
        fc1=('mlp.0',),
        fc2='mlp.3',
        head=('heads',),
        **MHA,
    ),
}
if importlib.util.find_spec('open_clip'):  # an extra of no method, only of one host
    HOSTS['open_clip'] = TimmHost(
        _open_clip,
        blocks=('transformer.resblocks.0', 'transformer.resblocks.1'),
        head=(),
        fc1=('mlp.c_fc',),
        fc2='mlp.c_proj',
        tokens=False,
        **{**MHA, 'proj': 'attn.out_proj'},
    )


@cache
def _plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    return tiny.randomised(HOSTS[name].make(), std=0.2).eval()


def plain(name: str) -> nn.Module:
    """A host's model with weights away from zero, in eval mode; a copy."""
    return copy.deepcopy(_plain(name))
