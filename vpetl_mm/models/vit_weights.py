"""ViT weights in their authors' naming (timm's and its descendants'), translated to the hosts' names."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..errors import UserError

StateDict = dict[str, Tensor]

# What belongs to pre-training or to another task's head, and to no backbone.
LEFT_OUT = ('head.', 'fc.', 'pre_logits.', 'decoder', 'mask_token', 'encoder_to_decoder', 'head_dist.')
WRAPPERS = ('module.', 'base_encoder.', 'backbone.', 'encoder.', 'cls_backbone.')
# timm's name -> mmpretrain's, below a block
IMAGE_BLOCK = {
    'norm1': 'ln1',
    'norm2': 'ln2',
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
    'fc1': 'ffn.layers.0.0',
    'fc2': 'ffn.layers.1',
    'ls1.gamma': 'attn.gamma1.weight',
    'ls2.gamma': 'ffn.gamma2.weight',
}
# VideoMAE's name -> mmaction2's, below a block
VIDEO_BLOCK = {
    'mlp.fc1': 'mlp.layers.0.0',
    'mlp.fc2': 'mlp.layers.1',
    'fc1': 'mlp.layers.0.0',
    'fc2': 'mlp.layers.1',
}


def from_timm_vit(state: StateDict, backbone: nn.Module) -> StateDict:
    """An image ViT in timm's naming (ImageNet-21k, MAE, MoCo v3, DINOv2) for mmpretrain's VisionTransformer.

    q, k and v may be separate or fused; a position embedding of another size is resized (bicubic).

    Raises:
        UserError: when the position embedding is of no square image.
    """
    state = _fused(_plain(state))
    final = 'ln2' if backbone.out_type == 'avg_featmap' else 'ln1'
    state = {re.sub(r'^(fc_)?norm\.', f'{final}.', k): v for k, v in state.items()}
    state = _blocks(state, 'layers', IMAGE_BLOCK)
    if 'pos_embed' in state:
        state['pos_embed'] = _resized(state['pos_embed'], backbone)
    return state


def from_videomae(state: StateDict, backbone: nn.Module) -> StateDict:
    """VideoMAE's own naming, pre-trained or fine-tuned, for mmaction2's VisionTransformer.

    A pre-trained file normalises its tokens by a norm that the mean-pooling backbone has not, and lacks
    ``fc_norm``, which then starts at its initial values and is for the config to train.
    """
    state = _blocks(_fused(_plain(state)), 'blocks', VIDEO_BLOCK)
    own = backbone.state_dict()
    state = {k: v for k, v in state.items() if not (k.startswith('norm.') and k not in own) and k != 'pos_embed'}
    for name, fill in (('fc_norm.weight', 1.0), ('fc_norm.bias', 0.0)):
        if name in own and name not in state:
            state[name] = torch.full(own[name].shape, fill)
    return state


def _plain(state: StateDict) -> StateDict:
    """Without wrappers' prefixes, heads and decoders."""
    for wrapper in WRAPPERS:
        inside = {k.removeprefix(wrapper): v for k, v in state.items() if k.startswith(wrapper)}
        state = inside or state
    return {k: v for k, v in state.items() if not k.startswith(LEFT_OUT)}


def _fused(state: StateDict) -> StateDict:
    """Separate q, k and v projections, where there are some, put on top of each other."""
    fused = {k: v for k, v in state.items() if not re.search(r'\.attn\.[qkv]_proj\.', k)}
    for name in state:
        if '.attn.q_proj.' in name:
            parts: Iterable[str] = (name.replace('.q_proj.', f'.{slot}_proj.') for slot in 'qkv')
            fused[name.replace('.q_proj.', '.qkv.')] = torch.cat([state[p] for p in parts if p in state])
    return fused


def _blocks(state: StateDict, name: str, renamed: dict[str, str]) -> StateDict:
    """``blocks.N.<theirs>`` as ``<name>.N.<ours>``, and the patch embedding's name."""
    translated = {}
    for key, value in state.items():
        match = re.fullmatch(r'blocks\.(\d+)\.(.+)', key)
        if match:
            number, rest = match.groups()
            theirs = next((t for t in renamed if rest == t or rest.startswith(f'{t}.')), None)
            rest = renamed[theirs] + rest.removeprefix(theirs) if theirs else rest
            translated[f'{name}.{number}.{rest}'] = value
        else:
            translated[key.replace('patch_embed.proj.', 'patch_embed.projection.')] = value
    return translated


def _resized(embedding: Tensor, backbone: nn.Module) -> Tensor:
    extra, there = backbone.num_extra_tokens, backbone.pos_embed.shape
    if embedding.shape == there or embedding.ndim != 3 or embedding.shape[2] != there[2]:
        return embedding
    side = round((embedding.shape[1] - extra) ** 0.5)
    if side * side != embedding.shape[1] - extra:
        raise UserError(f'pos_embed holds {embedding.shape[1]} tokens, which is no square image and a class token.')
    return resize_pos_embed(embedding, (side, side), backbone.patch_resolution, backbone.interpolate_mode, extra)
