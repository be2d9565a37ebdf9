"""Small vision models of transformers, 4.57 or 5, and the names of their parts, written down by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from tiny import randomised
from torch import Tensor, nn

V5 = int(transformers.__version__.split('.')[0]) >= 5
transformers.logging.set_verbosity_error()  # the text half of a SigLIP 2 is nobody's here

D = 24  # the width of the small models
SIZES = dict(hidden_size=D, num_hidden_layers=2, num_attention_heads=2)
VIT = dict(SIZES, intermediate_size=48, image_size=32, patch_size=8)
SIGLIP = dict(SIZES, intermediate_size=48, image_size=32, patch_size=8)
SIGLIP2 = dict(SIZES, intermediate_size=48, patch_size=8, num_patches=16)
SWIN = dict(image_size=32, patch_size=4, embed_dim=D, depths=[2, 2], num_heads=[2, 2], window_size=4)
JEPA = dict(SIZES, mlp_ratio=2, crop_size=32, patch_size=8, frames_per_clip=4, tubelet_size=2)
PREDICTOR = dict(pred_hidden_size=D, pred_num_attention_heads=2, pred_num_hidden_layers=1, num_pooler_layers=1)


def images(batch: int = 2) -> dict[str, Tensor]:
    """Images of 16 patches, or of 64."""
    return dict(pixel_values=_drawn(batch, 3, 32, 32))


def clips(batch: int = 2) -> dict[str, Tensor]:
    """Clips of four frames."""
    return dict(pixel_values=_drawn(batch, 4, 3, 32, 32))


def jepa_clips(batch: int = 2) -> dict[str, Tensor]:
    """The same, by V-JEPA 2's name."""
    return dict(pixel_values_videos=clips(batch)['pixel_values'])


def padded(batch: int = 2) -> dict[str, Tensor]:
    """Patches of images of several shapes; four are padding in every second image."""
    shapes = torch.tensor([[4, 4], [3, 4]] * batch)[:batch]
    mask = torch.tensor([[1] * 16, [1] * 12 + [0] * 4] * batch)[:batch]
    return dict(pixel_values=_drawn(batch, 16, 192), pixel_attention_mask=mask, spatial_shapes=shapes)


def _drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# place -> path below a block
APART = dict(qkv='attention', attn='attention', proj='attention.o_proj')  # of version 5
FFN = dict(mlp='mlp', fc1='mlp.fc1', fc2='mlp.fc2')
NESTED = dict(qkv='attention.attention', attn='attention.attention', proj='attention.output.dense')
PARTS = dict(mlp='intermediate', fc1='intermediate.dense', fc2='output.dense')
SELF = dict(qkv='self_attn', attn='self_attn', proj='self_attn.out_proj')
GATED = dict(mlp='mlp', fc1=('mlp.gate_proj', 'mlp.up_proj'), fc2='mlp.down_proj')
MERGED = dict(mlp='mlp', fc1='mlp.weights_in', fc2='mlp.weights_out')

# method -> words of the one sentence that refuses it
NO_TOKENS = {'shallow': ('take no further tokens', 'deep=True fits')}
NO_KEYS = dict.fromkeys(('prefix', 'prompt', 'concat', 'all'), ('scaled_dot_product_attention',))


@dataclass(frozen=True)
class Host:
    """A small model and its parts.

    Args:
        build: makes the model.
        inputs: batch size -> its inputs.
        below: place -> path, or paths, below a block.
        blocks: path of the backbone's blocks.
        backbone: path of the backbone, '' for the model itself.
        heads: what is behind the backbone.
        refuses: method -> words of the refusal.
        slots: of the attention, (query, key, value) or (fused,).
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    below: Mapping[str, str | tuple[str, ...]]
    blocks: tuple[str, ...]
    backbone: str = ''
    heads: tuple[str, ...] = ()
    refuses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slots: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj')

    def at(self, place: str) -> list[str]:
        """The paths in the model of the modules at a place, in order."""
        below = '' if place == 'block' else self.below[place]
        paths = (below,) if isinstance(below, str) else below
        at = f'{self.backbone}.' if self.backbone else ''
        return [f'{at}{block}.{path}'.removesuffix('.') for block in self.blocks for path in paths]

    def train(self) -> list[str]:
        """``train`` for :func:`adapt`: the head, where there is one."""
        return ['head'] if self.heads else []


def _blocks(path: str, count: int = 2) -> tuple[str, ...]:
    return tuple(f'{path}.{i}' for i in range(count))


LAYERS, LAYER = _blocks('layers'), _blocks('encoder.layer')
OLD_SLOTS = ('query', 'key', 'value')
OLD = dict(below=NESTED | PARTS, blocks=LAYER, slots=OLD_SLOTS)
NEW_VIT = dict(below=APART | FFN, blocks=LAYERS) if V5 else OLD
DINO2 = dict(below=APART | FFN, blocks=LAYER) if V5 else dict(below=NESTED | FFN, blocks=LAYER, slots=OLD_SLOTS)
DINO3 = dict(inputs=images, blocks=_blocks('model.layer' if V5 else 'layer'), refuses=NO_TOKENS)
ENCODER = dict(below=SELF | FFN, blocks=_blocks('encoder.layers'))
SWIN_BLOCKS = tuple(f'encoder.layers.{stage}.blocks.{i}' for stage in (0, 1) for i in (0, 1))
OLD_SWIN = dict(NESTED | PARTS, qkv='attention.self', attn='attention.self')
JEPA_BELOW = dict(qkv='attention', attn='attention', proj='attention.proj') | FFN
JEPA_HOST = dict(inputs=jepa_clips, below=JEPA_BELOW, blocks=LAYER, refuses=NO_TOKENS, slots=OLD_SLOTS)
CLASSIFIER = dict(heads=('classifier',))


def of(cls: str, config: str, sizes: Mapping[str, Any], **options: Any) -> Callable[[], nn.Module]:
    """Return what builds a model of transformers."""
    return lambda: getattr(transformers, cls)(getattr(transformers, config)(**{**sizes, **options}))


HOSTS = {
    'vit': Host(
        of('ViTForImageClassification', 'ViTConfig', VIT, num_labels=5),
        images,
        backbone='vit',
        **NEW_VIT,
        **CLASSIFIER,
    ),
    'vit_bare': Host(of('ViTModel', 'ViTConfig', VIT), images, **NEW_VIT),
    'dinov2': Host(
        of('Dinov2ForImageClassification', 'Dinov2Config', VIT, mlp_ratio=2, num_labels=5),
        images,
        backbone='dinov2',
        **DINO2,
        **CLASSIFIER,
    ),
    'dinov2_gated': Host(
        of('Dinov2Model', 'Dinov2Config', VIT, mlp_ratio=2, use_swiglu_ffn=True),
        images,
        **{**DINO2, 'below': DINO2['below'] | (GATED if V5 else MERGED)},
    ),
    'dinov3': Host(
        of('DINOv3ViTModel', 'DINOv3ViTConfig', VIT, num_register_tokens=2),
        below=APART | dict(mlp='mlp', fc1='mlp.up_proj', fc2='mlp.down_proj'),
        **DINO3,
    ),
    'dinov3_gated': Host(
        of('DINOv3ViTModel', 'DINOv3ViTConfig', VIT, use_gated_mlp=True), below=APART | GATED, **DINO3
    ),
    'siglip': Host(
        of('SiglipForImageClassification', 'SiglipConfig', {}, vision_config=SIGLIP, num_labels=5),
        images,
        backbone='vision_model',
        **ENCODER,
        **CLASSIFIER,
    ),
    'siglip2': Host(
        of('Siglip2ForImageClassification', 'Siglip2Config', {}, vision_config=SIGLIP2, num_labels=5),
        padded,
        backbone='vision_model',
        refuses=NO_TOKENS,
        **ENCODER,
        **CLASSIFIER,
    ),
    'siglip2_bare': Host(
        of('Siglip2VisionModel', 'Siglip2VisionConfig', SIGLIP2),
        padded,
        refuses=NO_TOKENS,
        **{**ENCODER, 'blocks': _blocks('encoder.layers' if V5 else 'vision_model.encoder.layers')},
    ),
    'swin': Host(
        of('SwinForImageClassification', 'SwinConfig', SWIN, drop_path_rate=0.0, num_labels=5),
        images,
        below=APART | FFN if V5 else OLD_SWIN,
        blocks=SWIN_BLOCKS,
        backbone='swin',
        refuses=NO_TOKENS if V5 else NO_TOKENS | NO_KEYS,
        slots=('q_proj', 'k_proj', 'v_proj') if V5 else OLD_SLOTS,
        **CLASSIFIER,
    ),
    'videomae': Host(
        of('VideoMAEForVideoClassification', 'VideoMAEConfig', VIT, num_frames=4, num_labels=5),
        clips,
        backbone='videomae',
        heads=('fc_norm', 'classifier'),
        **OLD,
    ),
    'videomae_bare': Host(
        of('VideoMAEModel', 'VideoMAEConfig', VIT, num_frames=4, use_mean_pooling=False), clips, **OLD
    ),
    'timesformer': Host(
        of('TimesformerForVideoClassification', 'TimesformerConfig', VIT, num_frames=4, num_labels=5),
        clips,
        backbone='timesformer',
        refuses=NO_TOKENS | NO_KEYS,
        **{**OLD, 'slots': ('qkv',), 'below': OLD['below'] | dict(qkv='attention.attention.qkv')},
        **CLASSIFIER,
    ),
    'vivit': Host(
        of('VivitForVideoClassification', 'VivitConfig', VIT, num_frames=4, tubelet_size=[2, 8, 8], num_labels=5),
        clips,
        backbone='vivit',
        **NEW_VIT,
        **CLASSIFIER,
    ),
    'vjepa2': Host(
        of('VJEPA2ForVideoClassification', 'VJEPA2Config', JEPA | PREDICTOR, num_labels=5),
        backbone='vjepa2',
        heads=('pooler', 'classifier'),
        **JEPA_HOST,
    ),
    'vjepa2_bare': Host(of('VJEPA2Model', 'VJEPA2Config', JEPA | PREDICTOR), **JEPA_HOST),
}


@cache
def plain(name: str) -> nn.Module:
    """A model of ``HOSTS`` with random weights, in eval mode; shared, so copy it before a change."""
    return randomised(HOSTS[name].build(), std=0.2).eval()


def output(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits, or the last hidden state of a model without a head; padding is left out."""
    y = model(**inputs)
    if hasattr(y, 'logits'):
        return y.logits
    mask = inputs.get('pixel_attention_mask')
    return y.last_hidden_state if mask is None else y.last_hidden_state[mask.bool()]
