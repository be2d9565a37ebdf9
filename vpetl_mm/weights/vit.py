"""ViTs: timm's naming and its descendants, the original JAX naming, and how both fit the hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from mmaction.models.backbones.vit_mae import get_sinusoid_encoding
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..errors import UserError
from .tensors import Weights

# tensors of a task or of pre-training, not of the backbone
HEADS = r'(\w*head|fc|pre_logits|head_dist|neck|data_preprocessor)\.'
PRETRAINING = {
    HEADS: 'head',
    r'decoder|encoder_to_decoder\.': "pre-training's decoder",
    r'mask_token$': "pre-training's mask token",
    r'momentum_encoder\.': 'momentum encoder',
    r'predictor\.': "pre-training's predictor",
}
PRETRAINED = r'encoder\.'  # the prefix of a video ViT in VideoMAE's pre-training
UNHOSTED = {
    'dist_token': 'it is a distilled ViT; no backbone here has its second token (dist_token)',
    'reg_token': 'it has register tokens (reg_token); no backbone here has them',
    'register_tokens': 'it has register tokens (register_tokens); no backbone here has them',
}
# beginning of the authors' name -> of the host's, the more specific ones first; # is the number of a block
IMAGE = {
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
VIDEO = {
    'blocks.#.mlp.fc1': 'blocks.#.mlp.layers.0.0',
    'blocks.#.mlp.fc2': 'blocks.#.mlp.layers.1',
    'blocks.#.fc1': 'blocks.#.mlp.layers.0.0',
    'blocks.#.fc2': 'blocks.#.mlp.layers.1',
    'patch_embed.proj': 'patch_embed.projection',
}
GOOGLE = {
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
} | {
    'Transformer/posembed_input/pos_embedding': 'pos_embed',
    'Transformer/encoder_norm/scale': 'ln1.weight',
    'Transformer/encoder_norm/bias': 'ln1.bias',
    'embedding/kernel': 'patch_embed.projection.weight',
    'embedding/bias': 'patch_embed.projection.bias',
    'cls': 'cls_token',
}


def timm_names(weights: Weights, table: Mapping[str, str] = IMAGE) -> None:
    """Translate timm's naming (ImageNet-21k, MAE, MoCo v3, DINOv2) into mmpretrain's VisionTransformer's.

    Drops heads and decoders, renames by the table and fuses q, k and v.
    """
    for pattern, why in PRETRAINING.items():
        weights.drop(pattern, why)
    for name, why in UNHOSTED.items():
        if name in weights:
            raise UserError(f'{why}.')
    _rename(weights, table)


def dinov2_names(weights: Weights) -> None:
    """Translate timm's naming of an image ViT with LayerScale."""
    timm_names(weights)
    if not weights.has(r'.*\.gamma1\.'):
        raise UserError('it has no LayerScale (ls1.gamma).')


def miil_names(weights: Weights) -> None:
    """Translate timm's naming of an image ViT without a bias in qkv."""
    timm_names(weights)
    if weights.has(r'.*\.qkv\.bias$'):
        raise UserError('it has a bias in qkv.')


def videomae_names(weights: Weights) -> None:
    """Translate VideoMAE's naming, pre-trained or fine-tuned, into mmaction2's VisionTransformer's."""
    timm_names(weights, VIDEO)


def google_names(weights: Weights) -> None:
    """Translate the original JAX ViT: kernels are (in, out), heads separate, and images channels-last."""
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
    _rename(weights, GOOGLE)


def _joined(weights: Weights, name: str, which: str, kind: str) -> Tensor:
    """Join the heads: (d, heads, d/heads) becomes (d, d), output first; in ``out`` the heads come first."""
    tensor = weights[name]
    if tensor.ndim != (3 if kind == 'kernel' else 2):
        raise UserError(f'{name} has {tensor.ndim} dimensions, unlike the heads of the original ViT.')
    if kind == 'bias':
        return tensor.flatten()
    if which == 'out':
        return tensor.flatten(0, 1).T
    weights.heads = tensor.shape[1]
    return tensor.flatten(1).T


def _rename(weights: Weights, table: Mapping[str, str]) -> None:
    """Translate by a table of the beginnings of names, then fuse separate q, k and v where all three are present."""
    weights.rename(_translation(table.items()))
    weights.theirs = _translation((ours, theirs) for theirs, ours in table.items())
    for name in weights:
        if match := re.fullmatch(r'(.+\.attn\.)q(_proj|)(\.weight|\.bias)', name):
            before, proj, after = match.groups()
            parts = [f'{before}{slot}{proj}{after}' for slot in 'qkv']
            if all(p in weights for p in parts):
                weights.fuse(parts, f'{before}qkv{after}')


def _translation(pairs: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    table = [(re.escape(a).replace(r'\#', r'(\d+)') + r'(?=\.|$)', b.replace('#', r'\1')) for a, b in pairs]

    def translate(name: str) -> str:
        replaced = (re.subn(rf'^{pattern}', to, name) for pattern, to in table)
        return next((new for new, found in replaced if found), name)

    return translate


def to_timm(name: str) -> str:
    """Return timm's name of a module or a parameter of mmpretrain's VisionTransformer."""
    return _translation((ours, theirs) for theirs, ours in IMAGE.items())(name)


def from_timm(name: str) -> str:
    """Return mmpretrain's name of a module or a parameter of timm's VisionTransformer."""
    return _translation(IMAGE.items())(name)


def fit_image(weights: Weights, backbone: nn.Module) -> None:
    """Rename the final norm as in ``backbone`` and resize the position embedding (bicubic).

    Raises:
        UserError: when the position embedding is not of a square image, or the number of heads differs.
    """
    heads = backbone.arch_settings['num_heads']
    if weights.heads not in (None, heads):
        raise UserError(f'its attention has {weights.heads} heads, but the backbone has {heads}.')
    own = backbone.state_dict()
    for there, here in (('ln1', 'ln2'), ('ln2', 'ln1')):
        if f'{there}.weight' in weights and f'{there}.weight' not in own and f'{here}.weight' not in weights:
            where = 'after averaging the patches' if there == 'ln2' else 'on the tokens'
            weights.remarks.append(
                f'its last norm is applied {where}, unlike that of the backbone (out_type={backbone.out_type!r})'
            )
            weights.rename(partial(re.sub, rf'^{there}\.', f'{here}.'))
    if 'pos_embed' in weights:
        embedding, there, extra = weights['pos_embed'], backbone.pos_embed.shape, backbone.num_extra_tokens
        if embedding.ndim == 3 and embedding.shape[2] == there[2] and embedding.shape != there:
            side = square_side(embedding.shape[1], extra)
            sizes = (side, side), backbone.patch_resolution
            resized = resize_pos_embed(embedding, *sizes, backbone.interpolate_mode, extra)
            weights.change('pos_embed', resized, 'resized')


def square_side(tokens: int, extra: int) -> int:
    """Return the number of patches along a side of the image, given all tokens and how many are ``extra``.

    Raises:
        UserError: when it is not a whole number.
    """
    side = round(max(tokens - extra, 0) ** 0.5)
    if side < 1 or side * side != tokens - extra:
        raise UserError(f'pos_embed has {tokens} tokens, not a square image and {extra or "no"} class token.')
    return side


def fit_video(weights: Weights, backbone: nn.Module) -> None:
    """Drop what follows from the settings, and the norm that a mean-pooling backbone does not have.

    A pre-trained file has that norm, on its tokens, and lacks ``fc_norm``, which then starts at its initial values
    and has to be trained.

    Raises:
        UserError: when the position embedding is learned, but the backbone's is fixed.
    """
    own = backbone.state_dict()
    if 'pos_embed' in weights and 'pos_embed' in {n for n, _ in backbone.named_buffers()}:
        table = weights['pos_embed']
        if table.ndim != 3 or not torch.allclose(table, get_sinusoid_encoding(*table.shape[1:]), atol=1e-2):
            raise UserError('its pos_embed is learned, but the backbone has a fixed sine table.')
        weights.drop('pos_embed$', 'derived from the settings')
    if 'norm.weight' not in own and (weights.has(r'norm\.') or weights.had(PRETRAINED)):
        weights.drop(r'norm\.', 'norm of the tokens, which a mean-pooling backbone does not have')
        for name, fill in (('fc_norm.weight', 1.0), ('fc_norm.bias', 0.0)):
            if name in own and name not in weights:
                weights.make(name, torch.full(own[name].shape, fill), f'initial value {fill:g}, to be trained')
