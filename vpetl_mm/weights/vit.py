"""ViTs: timm's naming and its descendants', the original ones, and how they fit the hosts."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from mmaction.models.backbones.vit_mae import get_sinusoid_encoding
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..errors import UserError
from .names import Names
from .tensors import Weights

# what belongs to pre-training or to a task, and to no backbone
HEADS = r'(\w*head|fc|pre_logits|head_dist|neck|data_preprocessor)\.'
PRETRAINING = {
    HEADS: 'head',
    r'decoder|encoder_to_decoder\.': "pre-training's decoder",
    r'mask_token$': "pre-training's mask token",
    r'momentum_encoder\.': 'momentum encoder',
    r'predictor\.': "pre-training's predictor",
}
UNHOSTED = {
    'dist_token': 'it is a distilled ViT, whose second token (dist_token) no backbone here has',
    'reg_token': 'it has register tokens (reg_token), which no backbone here has',
    'register_tokens': 'it has register tokens (register_tokens), which no backbone here has',
}
IMAGE = Names(
    {
        'blocks.#.norm1': 'layers.#.ln1',
        'blocks.#.norm2': 'layers.#.ln2',
        'blocks.#.mlp.fc1': 'layers.#.ffn.layers.0.0',
        'blocks.#.mlp.fc2': 'layers.#.ffn.layers.1',
        'blocks.#.fc1': 'layers.#.ffn.layers.0.0',
        'blocks.#.fc2': 'layers.#.ffn.layers.1',
        'blocks.#.ls1.gamma': 'layers.#.attn.gamma1.weight',
        'blocks.#.ls2.gamma': 'layers.#.ffn.gamma2.weight',
        'blocks.#': 'layers.#',
        'patch_embed.proj': 'patch_embed.projection',
        'norm': 'ln1',
        'fc_norm': 'ln2',
    }
)
VIDEO = Names(
    {
        'blocks.#.mlp.fc1': 'blocks.#.mlp.layers.0.0',
        'blocks.#.mlp.fc2': 'blocks.#.mlp.layers.1',
        'blocks.#.fc1': 'blocks.#.mlp.layers.0.0',
        'blocks.#.fc2': 'blocks.#.mlp.layers.1',
        'patch_embed.proj': 'patch_embed.projection',
    }
)
_parts = {
    f'Transformer/encoderblock_#/{theirs}/{a}': f'layers.#.{ours}.{b}'
    for theirs, ours in {
        'LayerNorm_0': 'ln1',
        'LayerNorm_2': 'ln2',
        'MlpBlock_3/Dense_0': 'ffn.layers.0.0',
        'MlpBlock_3/Dense_1': 'ffn.layers.1',
        'MultiHeadDotProductAttention_1/query': 'attn.q_proj',
        'MultiHeadDotProductAttention_1/key': 'attn.k_proj',
        'MultiHeadDotProductAttention_1/value': 'attn.v_proj',
        'MultiHeadDotProductAttention_1/out': 'attn.proj',
    }.items()
    for a, b in {('scale' if 'Norm' in theirs else 'kernel'): 'weight', 'bias': 'bias'}.items()
}
GOOGLE = Names(
    {
        **_parts,
        'Transformer/posembed_input/pos_embedding': 'pos_embed',
        'Transformer/encoder_norm/scale': 'ln1.weight',
        'Transformer/encoder_norm/bias': 'ln1.bias',
        'embedding/kernel': 'patch_embed.projection.weight',
        'embedding/bias': 'patch_embed.projection.bias',
        'cls': 'cls_token',
    }
)


def timm_names(weights: Weights) -> None:
    """An image ViT in timm's naming (ImageNet-21k, MAE, MoCo v3, DINOv2), for mmpretrain's VisionTransformer."""
    _plain(weights, IMAGE)


def dinov2_names(weights: Weights) -> None:
    """An image ViT in timm's naming that has LayerScale."""
    timm_names(weights)
    if not any('.gamma1.' in name for name in weights):
        raise UserError('it has no LayerScale (ls1.gamma).')


def miil_names(weights: Weights) -> None:
    """An image ViT in timm's naming that has no bias in qkv."""
    timm_names(weights)
    if any(name.endswith('.qkv.bias') for name in weights):
        raise UserError('it has a bias in qkv.')


def videomae_names(weights: Weights) -> None:
    """VideoMAE's own naming, pre-trained or fine-tuned, for mmaction2's VisionTransformer."""
    _plain(weights, VIDEO)


def google_names(weights: Weights) -> None:
    """The original image ViT of JAX: kernels are (in, out), heads apart, and images are channels-last."""
    weights.drop(r'opt/(?!target/)', 'optimizer')
    weights.rename(lambda name: name.removeprefix('opt/target/'))
    weights.drop(r'(head|pre_logits)/', 'head')
    for name in weights:
        tensor = weights[name]
        attention = re.search(r'/(query|key|value|out)/(kernel|bias)$', name)
        if attention and attention.groups() != ('out', 'bias'):
            weights.change(name, _joined(weights, name, *attention.groups()), 'heads joined')
        elif name == 'embedding/kernel' and tensor.ndim == 4:
            weights.change(name, tensor.permute(3, 2, 0, 1), 'transposed')
        elif name.endswith('/kernel') and tensor.ndim == 2:
            weights.change(name, tensor.T, 'transposed')
    weights.rename(GOOGLE.ours)
    weights.theirs = GOOGLE.theirs
    _fuse(weights)


def _joined(weights: Weights, name: str, which: str, kind: str) -> Tensor:
    """(d, heads, d/heads) as (d, d), output first; of ``out``, the heads come first."""
    tensor = weights[name]
    if tensor.ndim != (3 if kind == 'kernel' else 2):
        raise UserError(f'{name} has {tensor.ndim} dimensions, which is not how the original ViT has its heads.')
    if kind == 'bias':
        return tensor.flatten()
    if which == 'out':
        return tensor.flatten(0, 1).T
    weights.heads = tensor.shape[1]
    return tensor.flatten(1).T


def _plain(weights: Weights, names: Names) -> None:
    """Without heads and decoders; q, k and v fused; the rest by the table."""
    for pattern, why in PRETRAINING.items():
        weights.drop(pattern, why)
    for name, why in UNHOSTED.items():
        if name in weights:
            raise UserError(f'{why}.')
    weights.rename(names.ours)
    weights.theirs = names.theirs
    _fuse(weights)


def _fuse(weights: Weights) -> None:
    """Separate projections ``q_proj`` or ``q`` put on top of each other, where all three are there."""
    for name in weights:
        match = re.fullmatch(r'(.+\.attn\.)q(_proj)?(\.weight|\.bias)', name)
        if match:
            before, proj, after = match.group(1), match.group(2) or '', match.group(3)
            parts = [f'{before}{slot}{proj}{after}' for slot in 'qkv']
            if all(p in weights for p in parts):
                weights.fuse(parts, f'{before}qkv{after}')


def fit_image(weights: Weights, backbone: nn.Module) -> None:
    """Call the final norm as ``backbone`` does and resize the position embedding (bicubic).

    Raises:
        UserError: when the position embedding is of no square image, or the attention has other heads.
    """
    heads = backbone.arch_settings['num_heads']
    if weights.heads not in (None, heads):
        raise UserError(f'its attention has {weights.heads} heads, and the backbone has {heads}.')
    own = backbone.state_dict()
    for there, here in (('ln1', 'ln2'), ('ln2', 'ln1')):
        if f'{there}.weight' in weights and f'{there}.weight' not in own and f'{here}.weight' not in weights:
            what = 'behind the mean of the patches' if there == 'ln2' else 'of the tokens'
            weights.remarks.append(
                f'its last norm is one {what}, and the backbone, of out_type={backbone.out_type!r}, has another'
            )
            weights.rename(_exchange(there, here))
    if 'pos_embed' in weights:
        resized = _resized(weights['pos_embed'], backbone)
        if resized is not weights['pos_embed']:
            weights.change('pos_embed', resized, 'resized')


def _exchange(there: str, here: str) -> Callable[[str], str]:
    return lambda name: re.sub(rf'^{there}\.', f'{here}.', name)


def _resized(embedding: Tensor, backbone: nn.Module) -> Tensor:
    extra, there = backbone.num_extra_tokens, backbone.pos_embed.shape
    if embedding.shape == there or embedding.ndim != 3 or embedding.shape[2] != there[2]:
        return embedding
    side = square_side(embedding.shape[1], extra)
    return resize_pos_embed(embedding, (side, side), backbone.patch_resolution, backbone.interpolate_mode, extra)


def square_side(tokens: int, extra: int) -> int:
    """How many patches a side of the image has, given the position embedding's ``tokens``, ``extra`` included.

    Raises:
        UserError: when that is no whole number.
    """
    side = round(max(tokens - extra, 0) ** 0.5)
    if side < 1 or side * side != tokens - extra:
        raise UserError(f'pos_embed holds {tokens} tokens, which is no square image and {extra or "no"} class token.')
    return side


def fit_video(weights: Weights, backbone: nn.Module) -> None:
    """Leave out what follows from the settings, and the norm that a mean-pooling backbone has not.

    A pre-trained file normalises its tokens by that norm and lacks ``fc_norm``, which then starts at its
    initial values and is for the config to train.

    Raises:
        UserError: when the position embedding is a learned one, and the backbone's is not.
    """
    own, made = backbone.state_dict(), {n for n, _ in backbone.named_buffers()}
    if 'pos_embed' in weights and 'pos_embed' in made:
        table = weights['pos_embed']
        if table.ndim != 3 or not torch.allclose(table, get_sinusoid_encoding(*table.shape[1:]), atol=1e-2):
            raise UserError('pos_embed is a learned one, and the backbone has the fixed table of sines.')
        weights.drop('pos_embed$', 'derived from the settings')
    normed = any(name.startswith('norm.') for name in weights)
    if 'norm.weight' not in own and (normed or pretrained(weights)):
        weights.drop(r'norm\.', 'the norm of tokens, which a mean-pooling backbone has not')
        for name, fill in (('fc_norm.weight', 1.0), ('fc_norm.bias', 0.0)):
            if name in own and name not in weights:
                weights.make(name, torch.full(own[name].shape, fill), f'initial value {fill:g}, to be trained')


def pretrained(weights: Weights) -> bool:
    """Whether a video ViT comes from VideoMAE's pre-training: by its prefix, ``encoder.``."""
    return any(re.match(r'(.*\.)?encoder\.', key) for name in weights for key in weights.sources(name))
