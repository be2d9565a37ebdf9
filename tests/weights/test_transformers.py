"""Files of Hugging Face's models, as its own ``save_pretrained`` writes them, with the names of its versions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vpetl_mm.weights.base import base_state, load_base

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
IMAGE = dict(image_size=32, patch_size=8)
# name -> the class that people save, the backbone's, and what makes it small
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    'vit': ('ViTForImageClassification', 'ViTModel', {**SIZES, **IMAGE}),
    'dinov2': ('Dinov2ForImageClassification', 'Dinov2Model', {**SIZES, **IMAGE}),
    'dinov3': ('DINOv3ViTModel', 'DINOv3ViTModel', {**SIZES, **IMAGE}),
    'siglip': ('SiglipForImageClassification', 'SiglipVisionModel', {**SIZES, **IMAGE}),
    'swin': (
        'SwinForImageClassification',
        'SwinModel',
        dict(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32, patch_size=4),
    ),
    'videomae': ('VideoMAEForVideoClassification', 'VideoMAEModel', {**SIZES, **IMAGE, 'num_frames': 4}),
    'timesformer': ('TimesformerForVideoClassification', 'TimesformerModel', {**SIZES, **IMAGE, 'num_frames': 4}),
    'vivit': (
        'VivitForVideoClassification',
        'VivitModel',
        {**SIZES, 'image_size': 32, 'num_frames': 4, 'tubelet_size': [2, 8, 8]},
    ),
    'vjepa2': (
        'VJEPA2Model',
        'VJEPA2Model',
        {**SIZES, 'patch_size': 8, 'crop_size': 32, 'frames_per_clip': 4, 'mlp_ratio': 2, 'pred_hidden_size': 16,
         'pred_num_attention_heads': 2, 'pred_num_hidden_layers': 1},
    ),
}  # fmt: skip
MODEL = pytest.mark.parametrize('name', MODELS)


class Box(nn.Module):
    """A model below another, as in a backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def made(name: str, which: int, seed: int, **changes: Any) -> nn.Module:
    cls = getattr(transformers, MODELS[name][which])
    config = cls.config_class(**{**MODELS[name][2], **changes})
    if hasattr(config, 'vision_config'):  # SigLIP's classifier has that of the image tower inside
        config.vision_config = type(config.vision_config)(**{**MODELS[name][2], **changes})
    return tiny.randomised(cls(config), seed).eval()


def saved(name: str, folder: str = 'model', **changes: Any) -> tuple[nn.Module, str]:
    """A model with a head, as people train it, and its file."""
    source = made(name, 0, 0, **changes)
    source.save_pretrained(folder)
    return source, f'{folder}/model.safetensors'


def backbone(name: str, **changes: Any) -> Box:
    return Box(made(name, 1, 9, **changes))


def inner(model: nn.Module) -> nn.Module:
    """The backbone in the model that people save."""
    if type(model).__name__.endswith('Model'):
        return model
    return getattr(model, 'vision_model', None) or getattr(model, model.base_model_prefix)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors; SigLIP's image tower has one more level in some versions."""
    return {k.removeprefix('vision_model.'): v for k, v in model.state_dict().items()}


def backbone_like(name: str, source: nn.Module, **changes: Any) -> Box:
    """A backbone that has a pooler where the source has one."""
    loaded = backbone(name, **changes)
    if getattr(inner(source), 'pooler', None) is None:
        loaded.model.pooler = None
    return loaded


def loads(name: str, file: str, source: nn.Module) -> None:
    loaded = backbone_like(name, source)
    load_base(loaded, dict(file=file))
    own, wanted = state_of(loaded.model), state_of(inner(source))
    assert {k for k in wanted if k in own} == {*own}
    for key, value in own.items():
        torch.testing.assert_close(value, wanted[key], msg=key)


@MODEL
def test_every_tensor_is_that_of_the_model_that_was_saved(name):
    source, file = saved(name)
    loads(name, file, source)


@MODEL
def test_half_precision_and_a_pickle(name):
    source, file = saved(name)
    half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}
    torch.save(half, 'pytorch_model.bin')
    tiny_state = base_state(backbone_like(name, source), dict(file='pytorch_model.bin'))
    assert all(v.dtype == torch.float32 for v in tiny_state.values() if v.is_floating_point())


@pytest.mark.parametrize('name', ['vit', 'dinov2', 'siglip'])
def test_another_size_of_image_resizes_the_position_embedding(name):
    """As the model's own ``interpolate_pos_encoding`` does, in a model of the file's size."""
    source, file = saved(name)
    larger = backbone_like(name, source, image_size=48)
    load_base(larger, dict(file=file))
    embeddings = next(m for m in inner(source).modules() if hasattr(m, 'interpolate_pos_encoding'))
    tokens = torch.zeros(1, 37 if name != 'siglip' else 36, 16)
    with torch.no_grad():
        wanted = embeddings.interpolate_pos_encoding(tokens, 48, 48)
    key = next(k for k in larger.model.state_dict() if 'position_embedding' in k)
    torch.testing.assert_close(larger.model.state_dict()[key].reshape(wanted.shape), wanted)


def test_shards():
    source = made('vit', 0, 0)
    source.save_pretrained('model', max_shard_size='10KB')
    assert not torch.equal(next(backbone('vit').parameters()), next(inner(source).parameters()))
    loads('vit', 'model/model.safetensors.index.json', source)


# What does not fit


def refused(model: nn.Module, file: str, *words: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with tiny.refused(file, *words):
        load_base(model, dict(file=file))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


OTHERS = [
    ('vit', 'dinov2', "HF's ViT of width 16 and 2 blocks", 'transformers.Dinov2Model of width 16 and 2 blocks'),
    ('dinov2', 'vit', "HF's DINOv2 of width 16 and 2 blocks", 'transformers.ViTModel of width 16 and 2 blocks'),
    ('dinov3', 'dinov2', "HF's DINOv3 of width 16 and 2 blocks", ''),
    ('siglip', 'vit', "HF's SigLIP of width 16 and 2 blocks", ''),
    ('swin', 'vit', "HF's Swin of width 8 and 2 blocks", ''),
    ('videomae', 'timesformer', "HF's VideoMAE of width 16 and 2 blocks", 'transformers.TimesformerModel'),
    ('timesformer', 'videomae', "HF's TimeSformer of width 16 and 2 blocks", 'transformers.VideoMAEModel'),
    ('vivit', 'vit', "HF's ViViT of width 16 and 2 blocks", 'transformers.ViTModel of width 16 and 2 blocks'),
    ('vjepa2', 'videomae', "HF's V-JEPA 2 of width 16", 'transformers.VideoMAEModel'),
]


@pytest.mark.parametrize(('file', 'model', 'looks', 'own'), OTHERS)
def test_weights_of_another_model_are_named(file, model, looks, own):
    _, path = saved(file)
    refused(backbone(model), path, f'it looks like {looks}', own)


def test_another_depth_a_missing_a_strange_and_a_broken_tensor():
    source, file = saved('vit')
    refused(backbone('vit', num_hidden_layers=3), file, 'of width 16 and 2 blocks', 'and 3 blocks')
    state = load_file(file)
    key = next(k for k in state if re.search(r'1.*layernorm_after\.bias', k))
    loaded = backbone_like('vit', source)
    for number, (changed, said) in enumerate(
        (
            ({k: v for k, v in state.items() if k != key}, 'missing'),
            ({**state, key: torch.full_like(state[key], float('inf'))}, 'not finite'),
            ({**state, key: torch.ones(15)}, 'another shape'),
            ({**state, 'vit.encoder.extra.weight': torch.ones(3)}, 'left over: '),
        )
    ):
        save_file(changed, f'{number}.safetensors')
        refused(loaded, f'{number}.safetensors', said)
