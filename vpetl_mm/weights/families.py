"""Tells whose model a set of tensors is, by their names: what a sentence about the wrong file says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# the first pattern that a name matches, behind any prefix -> whose; HF is Hugging Face's transformers
FAMILIES = {
    r'base_model\.model\..*\.lora_[AB]\.': 'an adapter of PEFT, which holds no backbone,',
    r'encoder\.layer\.\d+\.temporal_attention\.': "HF's TimeSformer",
    r'encoder\.layer\.\d+\.attention\.attention\.q_bias$': "HF's VideoMAE",
    r'encoder\.layer\.\d+\.attention\.query\.': "HF's V-JEPA 2",
    r'encoder\.layer\.\d+\.layer_scale1\.': "HF's DINOv2",
    r'layer\.\d+\.layer_scale1\.': "HF's DINOv3",
    r'encoder\.layer\.\d+\.attention\.self\.': "a text model in BERT's naming",
    r'(encoder\.layer|layers)\.\d+\.(attention\.attention\.query|attention\.q_proj)\.': "HF's ViT",
    r'pre_layrnorm\.': "HF's CLIP",
    r'encoder\.layers\.\d+\.self_attn\.q_proj\.': "HF's SigLIP",
    r'encoder\.layers\.\d+\.blocks\.\d+\.attention\.': "HF's Swin",
    r'layers\.\d+\.self_attn\.q_proj\.': 'a language model',
    r'layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$': 'a Swin',
    r'stages\.\d+\.blocks\.\d+\.attn\.w_msa\.': "mmpretrain's Swin",
    r'layers\.\d+\.ln1\.': "mmpretrain's ViT",
    r'(opt/target/)?Transformer/encoderblock_\d+/': 'an original ViT of JAX',
    r'resblocks\.\d+\.attn\.in_proj_weight$': "OpenAI's or OpenCLIP's CLIP",
    r'embeds\.proj\.weight$': "timm's NaFlexViT",
    r'blocks\.\d+\.proj\.weight$': 'a Hiera',
    r'blocks\.\d+\.(attn\.q_bias|attn\.q_proj\.weight|mlp\.(fc1_g|w1)\.weight|gamma_1)$': "timm's EVA-02 or DINOv3",
    r'storage_tokens$': 'a DINOv3 of its authors',
    r'blocks\.\d+\.attn\.qkv\.weight$': "a ViT in timm's naming",
    r'layer1\.0\.conv1\.weight$': 'a ResNet',
    r'(stages\.\d+\.blocks\.\d+\.conv_dw|stages\.\d+\.\d+\.(dwconv|depthwise_conv))\.': 'a ConvNeXt',
}
VIDEO = {"HF's ViT": "HF's ViViT", "a ViT in timm's naming": 'a video ViT', 'a Swin': 'a Video Swin'}
BLOCK = r'(?:encoder\.layer|layers?|blocks|resblocks|encoderblock_|stages)[./_]?(\d+)'
PATCHES = r'(.*[./])?(patch_embed(dings?)?\.(proj(ection)?\.)?|embeds\.proj\.|embedding/)(weight|kernel)$'
NORM = r'(.*[./])?(norm\d|layernorm_before|layer_?norm_?[12]|ln_?1|LayerNorm_0)[./](weight|scale)$'


def described(state: Mapping[str, Tensor]) -> str:
    """Return whose model tensors are and how large, such as ``"HF's ViT of width 768 and 12 blocks"``."""
    return sized(_whose(state) or 'no backbone that is known here', state)


def sized(whose: str, state: Mapping[str, Tensor]) -> str:
    """Return a model's name with its width and its number of blocks, as far as the names of its tensors tell."""
    width, blocks = _width(state), _count(state)
    size = [*([f'width {width}'] if width else []), *([f'{blocks} blocks'] if blocks else [])]
    return f'{whose} of {" and ".join(size)}' if size else whose


def _whose(state: Mapping[str, Tensor]) -> str | None:
    for pattern, whose in FAMILIES.items():
        if any(_matches(pattern, name) for name in state):
            patches = next((v for k, v in state.items() if re.match(PATCHES, k)), None)
            if patches is None or patches.ndim < 5:
                return whose
            has_token = any(_matches(r'embeddings\.cls_token$', name) for name in state)
            return "HF's VideoMAE" if whose == "HF's ViT" and not has_token else VIDEO.get(whose, whose)
    return None


def _matches(pattern: str, name: str) -> bool:
    return re.match(rf'(.*[./])?{pattern}', name) is not None


def _width(state: Mapping[str, Tensor]) -> int | None:
    """Return the length of the first norm inside the blocks."""
    return next((len(v) for k, v in state.items() if v.ndim == 1 and re.search(BLOCK, k) and re.match(NORM, k)), None)


def _count(state: Iterable[str]) -> int:
    """Return how many blocks there are; those of stages add up."""
    found = set()
    for name in state:
        if numbers := re.search(BLOCK + r'(?:\.blocks\.(\d+))?', name):
            found.add(numbers.groups())
    nested = {pair for pair in found if pair[1] is not None}
    return len(nested or found)
