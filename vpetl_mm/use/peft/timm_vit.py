"""timm's image ViT: the mmpretrain models that it can reproduce, and its arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from ...config import arguments_of
from ...errors import UserError
from ...models.build import build_model
from ...petl.deltas import of_delta
from ...weights.vit import to_timm

# options of mmpretrain's backbone that timm has too, or that do not change what a tested model computes
SHARED = {
    'type',
    'arch',
    'img_size',
    'patch_size',
    'in_channels',
    'drop_rate',
    'drop_path_rate',
    'qkv_bias',
    'interpolate_mode',
    'frozen_stages',
    'layer_scale_init_value',
    'init_cfg',
    'with_cp',
}
POOLED = dict(out_type='avg_featmap', final_norm=False)  # timm's global_pool='avg'


def timm_model(model: Mapping[str, Any], petl: Mapping[str, Any]) -> nn.Module:
    """Build a model on the meta device, if timm's VisionTransformer with a linear layer computes the same.

    Args:
        model: the config of a PETLImageClassifier.
        petl: what takes the place of its own ``petl``.

    Raises:
        UserError: for anything that timm's VisionTransformer does not have; names it.
    """
    kinds = model.get('type'), (model.get('backbone') or {}).get('type')
    if kinds != ('PETLImageClassifier', 'VisionTransformer'):
        raise UserError(
            f"PEFT's folder is for timm's image ViT, which is mmpretrain's VisionTransformer in a "
            f'PETLImageClassifier, and this is a {kinds[1]} in a {kinds[0]}.'
        )
    built = build_model(dict(default_scope='mmpretrain', model={**model, 'petl': petl, 'base': None}), meta=True)
    last, given = built.backbone.num_layers - 1, dict(model['backbone'])
    if given.get('out_indices') in (last, [-1], [last], (-1,), (last,)):
        del given['out_indices']
    defaults = arguments_of(VisionTransformer)
    changed = {k: v for k, v in given.items() if k not in SHARED and v != defaults[k]}
    if changed and changed != POOLED:
        name = next(iter(changed))
        raise UserError(f"timm's VisionTransformer has nothing like model.backbone.{name}={changed[name]!r:.80}.")
    head = built.head
    if model.get('neck') or not isinstance(head, LinearClsHead):
        what = 'a neck' if model.get('neck') else f'the head {type(head).__name__}'
        raise UserError(f"timm's VisionTransformer ends with one linear layer, and this model has {what}.")
    return built


def timm_options(model: nn.Module) -> dict[str, Any]:
    """Return the arguments of timm's VisionTransformer for a model of :func:`timm_model`."""
    backbone, arch = model.backbone, model.backbone.arch_settings
    width, hidden = arch['embed_dims'], arch['feedforward_channels']
    ratio = hidden / width
    if int(width * ratio) != hidden:  # as timm computes it
        ratio = math.nextafter(ratio, math.inf)
    scale = getattr(backbone.layers[0].attn, 'gamma1', None)
    options = dict(
        img_size=tuple(backbone.img_size),
        patch_size=tuple(backbone.patch_embed.projection.kernel_size),
        in_chans=backbone.patch_embed.projection.in_channels,
        num_classes=model.head.fc.out_features,
        embed_dim=width,
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=ratio,
        qkv_bias=backbone.layers[0].attn.qkv.bias is not None,
    )
    options |= dict(init_values=1e-5) if isinstance(getattr(scale, 'weight', None), nn.Parameter) else {}
    return options | (dict(global_pool='avg') if backbone.out_type == 'avg_featmap' else {})


def timm_state(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a backbone, deltas left out, under timm's names."""
    return {to_timm(name): value for name, value in backbone.state_dict().items() if not of_delta(name)}
