"""The config of the backbone that a file belongs to, inferred from the shapes of its tensors."""

from __future__ import annotations

import math
import re
from typing import Any

from ..errors import UserError
from .tensors import StateDict, Weights
from .vit import PRETRAINED, square_side

Config = dict[str, Any]
# Video Swin's, to which a 2D file is inflated
FRAMES, WINDOW = 2, (8, 7, 7)
TABLE = 'attn.relative_position_bias_table'
# width -> number of heads of the published ViTs whose heads are not 64 wide: ViT-H, VideoMAE's ViT-g
HEADS = {1280: 16, 1408: 16}
# of the hosts; a config leaves them out
DEFAULTS = dict(mlp_ratio=4, qkv_bias=True, patch_norm=True, in_channels=3)


def swin3d(weights: Weights, state: StateDict) -> Config:
    """Infer the config of mmaction2's SwinTransformer3D.

    Args:
        weights: under the host's names.
        state: the file's own tensors, also those that were dropped.
    """
    width, _, *patch = _shape(weights, 'patch_embed.proj.weight', 4, 5)
    stages = _numbers(weights, r'layers\.(\d+)\.')
    depths = [_numbers(weights, rf'layers\.{i}\.blocks\.(\d+)\.') for i in range(stages)]
    tables = [_shape(weights, f'layers.{i}.blocks.0.{TABLE}', 2) for i in range(stages)]
    flat = len(patch) == 2
    config = dict(
        type='SwinTransformer3D',
        arch=dict(embed_dims=width, depths=depths, num_heads=[heads for _, heads in tables]),
        patch_size=(FRAMES, *patch) if flat else tuple(patch),
        window_size=WINDOW if flat else _window(tables[0][0], state),
        out_indices=(stages - 1,),
        mlp_ratio=_shape(weights, 'layers.0.blocks.0.mlp.fc1.weight', 2)[0] / width,
        qkv_bias=weights.has(r'.*\.attn\.qkv\.bias'),
        patch_norm=weights.has(r'patch_embed\.norm\.'),
    )
    return _without_defaults(config)


def _window(rows: int, state: StateDict) -> tuple[int, int, int]:
    """Find (d, s, s) with a bias table of (2d-1)(2s-1)(2s-1) rows and, if the file has the index, d s s tokens."""
    tokens = next((v.shape[0] for k, v in state.items() if k.endswith('relative_position_index')), None)
    found = []
    for side in range(2, 33):
        offsets, rest = divmod(rows, (2 * side - 1) ** 2)
        depth = (offsets + 1) // 2
        if not rest and offsets % 2 and depth <= 64 and tokens in (None, depth * side * side):
            found.append((depth, side, side))
    usual = [w for w in found if w[1] == WINDOW[1]]
    if not usual and len(found) != 1:
        raise UserError(
            f'bias tables of {rows} rows do not determine the window; pass the config of these weights with --config.'
        )
    return (usual or found)[0]


def video_vit(weights: Weights, state: StateDict) -> Config:
    """Infer the config of mmaction2's VisionTransformer; no tensor tells the image size and the number of frames."""
    width, _, tubelet, patch, _ = _shape(weights, 'patch_embed.projection.weight', 5)
    config = dict(
        type='VisionTransformer',
        embed_dims=width,
        depth=_numbers(weights, r'blocks\.(\d+)\.'),
        num_heads=_heads(width),
        patch_size=patch,
        tubelet_size=tubelet,
        mlp_ratio=_shape(weights, 'blocks.0.mlp.layers.0.0.weight', 2)[0] / width,
        qkv_bias=weights.has(r'.*\.attn\.[qv]_bias'),
    )
    config |= dict(init_values=1.0) if weights.has(r'.*\.gamma_1') else {}
    pooled = weights.had(PRETRAINED) or weights.has(r'fc_norm\.') or not weights.has(r'norm\.')
    return _without_defaults(config | ({} if pooled else dict(use_mean_pooling=False)))


def image_vit(weights: Weights, state: StateDict) -> Config:
    """Infer the config of mmpretrain's VisionTransformer."""
    width, channels, *patch = _shape(weights, 'patch_embed.projection.weight', 4)
    hidden = _shape(weights, 'layers.0.ffn.layers.0.0.weight', 2)[0]
    extra = int('cls_token' in weights)
    tokens = _shape(weights, 'pos_embed', 3)[1]
    if not extra and math.isqrt(tokens) ** 2 != tokens and math.isqrt(tokens - 1) ** 2 == tokens - 1:
        raise UserError(f'{weights.known_as("cls_token")} is missing.')
    side = square_side(tokens, extra)
    depth, heads = _numbers(weights, r'layers\.(\d+)\.'), weights.heads or _heads(width)
    config = dict(
        type='VisionTransformer',
        arch=dict(embed_dims=width, num_layers=depth, num_heads=heads, feedforward_channels=hidden),
        img_size=side * patch[0] if patch[0] == patch[1] else (side * patch[0], side * patch[1]),
        patch_size=patch[0] if patch[0] == patch[1] else tuple(patch),
        in_channels=channels,
        qkv_bias=weights.has(r'.*\.attn\.qkv\.bias'),
    )
    config |= dict(layer_scale_init_value=1e-5) if weights.has(r'.*\.gamma[12]\.weight') else {}
    config |= {} if extra else dict(with_cls_token=False, out_type='featmap')
    if weights.has(r'ln2\.'):
        config |= dict(out_type='avg_featmap', final_norm=weights.has(r'ln1\.'))
    return _without_defaults(config)


INFERRED = {
    'mmaction.SwinTransformer3D': swin3d,
    'mmaction.VisionTransformer': video_vit,
    'mmpretrain.VisionTransformer': image_vit,
}


def _heads(width: int) -> int:
    """Guess the number of heads, which no tensor of a ViT tells: as published for this width, else 64 wide heads."""
    return HEADS.get(width, width // 64 if width % 64 == 0 else 1)


def _without_defaults(config: Config) -> Config:
    return {key: value for key, value in config.items() if key not in DEFAULTS or value != DEFAULTS[key]}


def _shape(weights: Weights, name: str, *dimensions: int) -> tuple[int, ...]:
    if name not in weights:
        raise UserError(f'{weights.known_as(name)} is missing.')
    shape = tuple(weights[name].shape)
    if len(shape) not in dimensions or 0 in shape:
        wanted = ' or '.join(map(str, dimensions))
        raise UserError(f'{weights.known_as(name)} is {shape} but should have {wanted} dimensions.')
    return shape


def _numbers(weights: Weights, pattern: str) -> int:
    """Count the blocks that ``pattern`` finds, which must be numbered 0, 1, 2 and so on.

    A gap is refused here, before a backbone of that many blocks is built.
    """
    found = sorted({int(m.group(1)) for m in (re.match(pattern, name) for name in weights) if m})
    gap = next((i for i, n in enumerate([*found, -1]) if i != n), 0)
    if not found or gap < len(found):
        what = pattern.replace(r'(\d+)', str(gap)).replace('\\', '').rstrip('.')
        raise UserError(f'{weights.known_as(what)} is missing.')
    return len(found)
