"""Small models of timm and of Hugging Face, behind the backbones that wrap them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vpetl_mm import build_model

D = 32
MEAN = dict(mean=[127.5] * 3, std=[127.5] * 3)
# timm's name -> what makes it small
TIMM = {
    'vit_tiny_patch16_224': dict(embed_dim=D, depth=2, num_heads=2),
    'vit_small_patch14_reg4_dinov2': dict(embed_dim=D, depth=2, num_heads=2),
    'vit_base_patch16_siglip_224': dict(embed_dim=D, depth=2, num_heads=2),
    'vit_small_patch16_dinov3': dict(embed_dim=D, depth=2, num_heads=2),
    'eva02_tiny_patch14_224': dict(embed_dim=D, depth=2, num_heads=2),
    'swin_tiny_patch4_window7_224': dict(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4),
    'hiera_tiny_224': dict(embed_dim=16, stages=(1, 1), num_heads=2, q_pool=0, q_stride=(1, 1)),
    'naflexvit_base_patch16_gap': dict(embed_dim=D, depth=2, num_heads=2),
}
_PLAIN = dict(hidden_size=D, num_hidden_layers=2, num_attention_heads=2)
_VIT = dict(_PLAIN, intermediate_size=64, image_size=32, patch_size=8)
_PREDICTOR = dict(pred_hidden_size=D, pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=1)
# model_type -> a small config
HF = {
    'vit': _VIT,
    'dinov2': dict(_PLAIN, mlp_ratio=2, image_size=32, patch_size=8),
    'dinov3_vit': dict(_VIT, num_register_tokens=4),
    'siglip_vision_model': _VIT,
    'siglip2_vision_model': dict(_PLAIN, intermediate_size=64, patch_size=8, num_patches=16),
    'swin': dict(embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=32, patch_size=4),
    'videomae': dict(_VIT, num_frames=4, tubelet_size=2),
    'timesformer': dict(_VIT, num_frames=4),
    'vivit': dict(_PLAIN, intermediate_size=64, image_size=32, tubelet_size=[2, 8, 8], num_frames=4),
    'vjepa2': dict(_PLAIN, mlp_ratio=2, crop_size=32, patch_size=8, frames_per_clip=4, tubelet_size=2, **_PREDICTOR),
}
VIDEO = ('videomae', 'timesformer', 'vivit', 'vjepa2')
BAPAT = dict(
    patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4, source='norm', dropout=0.0)
)


def timm_backbone(name: str = 'vit_tiny_patch16_224', **options: Any) -> dict[str, Any]:
    """The config of a small backbone of timm; ``options`` are its own."""
    return {
        **dict(type='TimmBackbone', model=name, img_size=56 if '14' in name else 32, options=TIMM[name]),
        **options,
    }


def hf_backbone(kind: str = 'dinov2', **options: Any) -> dict[str, Any]:
    """The config of a small backbone of transformers; ``options`` are its own."""
    return {**dict(type='HFBackbone', config=dict(model_type=kind, **HF[kind])), **options}


def config(backbone: Mapping[str, Any], clips: bool = False, **options: Any) -> dict[str, Any]:
    """The config of a model; ``options`` are of ``petl`` and, among them, ``head`` and ``data_preprocessor``."""
    head = dict(type='PETLTokenHead' if clips else 'PETLImageHead', num_classes=5, in_channels=D)
    head.update(options.pop('head', {}))
    kind = (backbone.get('config') or {}).get('model_type')
    preprocessor = options.pop('data_preprocessor', MEAN if kind in ('vit', 'vivit') else None)
    petl = dict(dict(deltas=BAPAT, train=['head']), **options)
    return dict(
        default_scope='mmaction' if clips else 'mmpretrain',
        randomness=dict(seed=0),
        model={
            'type': 'PETLRecognizer3D' if clips else 'PETLImageClassifier',
            'base': None,
            'backbone': dict(backbone),
            'cls_head' if clips else 'head': head,
            'data_preprocessor': preprocessor,
            'petl': petl,
        },
    )


def build(*args: Any, **kwargs: Any) -> nn.Module:
    """:func:`config` built and initialised, in eval mode."""
    return build_model(config(*args, **kwargs), init_weights=True).eval()


def along(features: Tensor) -> Tensor:
    """The sum of features along one direction: their square would have no gradient behind a LayerNorm."""
    flat = features.flatten(1)
    return (flat * torch.linspace(-1, 2, flat.shape[1])).sum()
