"""Backbones of other libraries in a bundle: what their configs may say, and how large that may be.

Nothing here is a name that a library would look up on a disk or in a network: a model of timm is one of its table,
and one of transformers is described by numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import UserError
from ...models.hf_backbone import HFBackbone

TIMM = ('model', 'img_size', 'options')
TIMM_NAME = re.compile(r'[a-z0-9_]{1,100}(\.[a-z0-9_]{1,60})?')
# of timm's models; what their numbers may be stands in LIMITS
TIMM_OPTIONS = ('embed_dim', 'depth', 'depths', 'num_heads', 'mlp_ratio', 'patch_size', 'window_size', 'stages')
TIMM_OPTIONS += ('q_pool', 'qkv_bias', 'init_values', 'class_token', 'reg_tokens', 'global_pool', 'drop_rate')
TIMM_OPTIONS += ('pos_drop_rate', 'patch_drop_rate', 'proj_drop_rate', 'attn_drop_rate', 'drop_path_rate', 'fc_norm')
TIMM_OPTIONS += ('dynamic_img_size', 'dynamic_img_pad', 'no_embed_class', 'pre_norm', 'final_norm', 'ape')
HF = ('config', 'img_size', 'frames', 'out')
HF_MODELS = ('vit', 'dinov2', 'dinov3_vit', 'siglip_vision_model', 'siglip2_vision_model', 'swin')
HF_MODELS += ('videomae', 'timesformer', 'vivit', 'vjepa2')
HF_CONFIG = (
    'model_type',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'mlp_ratio',
)
HF_CONFIG += ('hidden_act', 'image_size', 'patch_size', 'num_channels', 'in_chans', 'layer_norm_eps', 'qkv_bias')
HF_CONFIG += ('qv_bias', 'query_bias', 'key_bias', 'value_bias', 'proj_bias', 'mlp_bias', 'layerscale_value')
HF_CONFIG += (
    'use_swiglu_ffn',
    'use_gated_mlp',
    'num_register_tokens',
    'rope_theta',
    'vision_use_head',
    'num_patches',
)
HF_CONFIG += ('use_mask_token', 'embed_dim', 'depths', 'num_heads', 'window_size', 'use_absolute_embeddings')
HF_CONFIG += ('num_frames', 'tubelet_size', 'use_mean_pooling', 'attention_type', 'crop_size', 'frames_per_clip')
HF_CONFIG += ('pred_hidden_size', 'pred_num_attention_heads', 'pred_num_hidden_layers', 'pred_num_mask_tokens')
HF_CONFIG += ('pred_zero_init_mask_tokens', 'pred_mlp_ratio', 'num_pooler_layers', 'decoder_num_attention_heads')
HF_CONFIG += ('decoder_hidden_size', 'decoder_num_hidden_layers', 'decoder_intermediate_size')
# in a config, but of no effect on what a tested model computes, or only said once more
LEFT_OUT = (
    'encoder_stride',
    'initializer_range',
    'pooler_output_size',
    'pooler_act',
    'apply_layernorm',
    'num_layers',
)
LEFT_OUT += ('reshape_hidden_states', 'stage_names', 'out_features', 'out_indices', 'norm_pix_loss')
LEFT_OUT += ('pos_embed_shift', 'pos_embed_jitter', 'pos_embed_rescale')  # of training
LEFT_OUT += ('hidden_dropout_prob', 'attention_probs_dropout_prob', 'attention_dropout', 'drop_path_rate')
MOST_BLOCKS, MOST_WIDTH, MOST_TOKENS = 64, 1 << 14, 1 << 16
# whole numbers, the least and the most that each may be
LIMITS = {
    **dict.fromkeys(('embed_dim', 'hidden_size', 'pred_hidden_size', 'decoder_hidden_size'), (1, MOST_WIDTH)),
    **dict.fromkeys(('intermediate_size', 'decoder_intermediate_size'), (1, 8 * MOST_WIDTH)),
    **dict.fromkeys(('num_hidden_layers', 'pred_num_hidden_layers', 'depth', 'depths', 'stages'), (1, MOST_BLOCKS)),
    **dict.fromkeys(('num_pooler_layers', 'decoder_num_hidden_layers', 'q_pool'), (0, MOST_BLOCKS)),
    **dict.fromkeys(('num_attention_heads', 'pred_num_attention_heads', 'num_heads'), (1, 1024)),
    'decoder_num_attention_heads': (1, 1024),
    **dict.fromkeys(('num_register_tokens', 'reg_tokens', 'pred_num_mask_tokens'), (0, 1024)),
    **dict.fromkeys(('num_channels', 'in_chans'), (3, 3)),
    **dict.fromkeys(('img_size', 'image_size', 'crop_size'), (1, 2048)),
    **dict.fromkeys(('frames', 'num_frames', 'frames_per_clip', 'tubelet_size'), (1, 1024)),
    **dict.fromkeys(('patch_size', 'window_size'), (1, 256)),
    'num_patches': (1, MOST_TOKENS),
}
LISTS = ('depths', 'num_heads', 'stages', 'img_size', 'patch_size', 'image_size', 'tubelet_size', 'window_size')
FINEST = 4  # the smallest patch of timm's models that have a table of positions
MOST_TABLE = 1 << 22  # entries of VideoMAE's table of positions, which are computed one by one


def check_library(backbone: Mapping[str, Any]) -> int:
    """Check names and sizes of a backbone of timm or of transformers, whose arguments have been checked one by one.

    Returns:
        How many blocks it has at most.

    Raises:
        UserError: for a name that is no model's, and for more tokens or blocks than a bundle may have.
    """
    if backbone['type'] == 'TimmBackbone':
        name, options = backbone.get('model'), backbone.get('options') or {}
        if not isinstance(name, str) or not TIMM_NAME.fullmatch(name):
            raise UserError("model.backbone.model is not the name of a model in timm's table.")
        sides, patch = _each(backbone.get('img_size')), _each(options.get('patch_size')) or (FINEST,)
        tokens, width, blocks = (max(sides, default=0) // min(patch)) ** 2, 1, [*_each(options.get('depths'))]
        blocks += [*_each(options.get('stages')), *_each(options.get('depth'))]
        most = MOST_TOKENS if 'patch_size' in options else 4 * MOST_TOKENS
    else:
        tokens, width, blocks = _hf_sizes(backbone)
        most = MOST_TOKENS
    if tokens > most:
        raise UserError(f'model.backbone has {tokens:,} tokens, and a bundle may have {most:,}.')
    if sum(blocks) > MOST_BLOCKS:
        raise UserError(f'model.backbone has {sum(blocks):,} blocks, and a bundle may have {MOST_BLOCKS}.')
    if tokens * width > MOST_TABLE:
        raise UserError(f'model.backbone has a table of {tokens * width:,} positions, too large for a bundle.')
    return sum(blocks) or MOST_BLOCKS


def _hf_sizes(backbone: Mapping[str, Any]) -> tuple[int, int, list[int]]:
    """Return the number of tokens, the width of their computed table or 1, and the numbers of blocks."""
    config = backbone.get('config')
    if not isinstance(config, Mapping) or config.get('model_type') not in HF_MODELS:
        raise UserError(f'model.backbone.config.model_type is none of {", ".join(HF_MODELS)}.')
    sides = [v for k in ('image_size', 'crop_size') for v in _each(config.get(k))] + [
        *_each(backbone.get('img_size'))
    ]
    patch = [*_each(config.get('patch_size')), *_each(config.get('tubelet_size'))[1:]]
    frames = [v for k in ('num_frames', 'frames_per_clip') for v in _each(config.get(k))]
    frames += [*_each(backbone.get('frames'))]
    tokens = math.ceil(max(sides, default=256) / min(patch, default=4 if config['model_type'] == 'swin' else 14)) ** 2
    tokens *= math.ceil(max(frames, default=64) / (_each(config.get('tubelet_size')) or (2,))[0]) if frames else 1
    names = ('num_hidden_layers', 'depths', 'pred_num_hidden_layers')
    blocks = [v for name in names for v in _each(config.get(name))]
    width = max(_each(config.get('hidden_size')), default=768) if config['model_type'] == 'videomae' else 1
    return tokens, width, blocks


def _each(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else () if value is None else (value,)


def portable_backbone(config: Mapping[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """Return a backbone's config without the name of a folder or of a repository: the model is described instead.

    Args:
        config: of the backbone.
        backbone: built from it.

    Raises:
        UserError: for a model of transformers whose config has a part that no bundle holds.
    """
    if not isinstance(backbone, HFBackbone):
        return dict(config)
    from transformers import PretrainedConfig

    own, usual = backbone.config.to_dict(), PretrainedConfig().to_dict()
    described = {k: v for k, v in own.items() if k == 'model_type' or (k not in usual and k not in LEFT_OUT)}
    described = {k: v for k, v in described.items() if v is not None}
    for name in described:
        if name not in HF_CONFIG:
            raise UserError(f'model.backbone.config.{name} of {own["model_type"]} is none that a bundle can hold.')
    return dict(type='HFBackbone', config=described, out=backbone.out)
