"""SPT where q, k and v are three layers, or passed by: the units, the counts and the results of the fused form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from chosen import by_hand, options
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.fast.sparse import GatheredSparse
from vpetl_mm.petl import Sparse, merge
from vpetl_mm.spt.allocation import write_allocation
from vpetl_mm.spt.units import class_token_of, units_of

SMALL = dict(embed_dim=16, depth=2, num_heads=2)
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)


def timm(model: str, side: int = 32, **more: Any) -> dict[str, Any]:
    return dict(type='TimmBackbone', model=model, img_size=side, options=dict(SMALL, **more))


def hf(kind: str, **more: Any) -> dict[str, Any]:
    return dict(type='HFBackbone', config=dict(model_type=kind, **SIZES, **more))


BACKBONES = {
    'fused': timm('vit_tiny_patch16_224'),
    'passed by': timm('eva02_tiny_patch14_224', 28),
    'apart': hf('vit', intermediate_size=32),
    'apart, k first': hf('dinov3_vit', intermediate_size=32),
    'apart, no bias of k': hf('videomae', intermediate_size=32, num_frames=4),
}


def config(backbone: dict[str, Any], petl: dict[str, Any] | None = None) -> dict[str, Any]:
    video = 'num_frames' in str(backbone)
    head = dict(num_classes=3, in_channels=16, type='PETLTokenHead' if video else 'PETLImageHead')
    model = dict(type='PETLRecognizer3D' if video else 'PETLImageClassifier', backbone=backbone, base=None)
    model |= dict(petl=dict(deltas={}, train=['head'], **(petl or {})))
    model |= dict(data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3))
    model['cls_head' if video else 'head'] = head
    return dict(default_scope='mmaction' if video else 'mmpretrain', model=model)


def tuned(name: str, folder: Path, structured: str, **petl: Any) -> nn.Module:
    plain, file = build_model(config(BACKBONES[name])), folder / 'spt.safetensors'
    write_allocation(file, by_hand(plain.backbone, structured))
    model = build_model(config(BACKBONES[name], dict(options(file, structured), **petl)))
    return tiny.randomised(model, 3).eval()


def sample(name: str) -> torch.Tensor:
    side, frames = BACKBONES[name].get('img_size', 32), (4,) if 'no bias' in name else ()
    return torch.randn(2, 3, *frames, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize('structured', ['LoRA', 'AdaptMLP'])
@pytest.mark.parametrize('name', BACKBONES)
def test_gathered_is_plain_everything_trains_and_lora_merges(name, structured, tmp_path):
    models = [tuned(name, tmp_path, structured, fast=fast) for fast in (True, False)]
    outs = [tiny.classify(model, sample(name)) for model in models]
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)
    for out in outs:
        out.square().sum().backward()
    for (key, fast), plain in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert not fast.requires_grad or fast.grad is not None, key
        if fast.requires_grad:
            torch.testing.assert_close(fast.grad, plain.grad, rtol=1e-3, atol=1e-5, msg=key)
    singles = [d for d in models[0].plan.deltas() if isinstance(d, Sparse)]
    assert singles and all(type(d) is GatheredSparse for d in singles)
    if structured == 'LoRA':
        merge(models[0])
        torch.testing.assert_close(tiny.classify(models[0], sample(name)), outs[0], rtol=1e-5, atol=1e-5)
        assert not any('.deltas.' in key for key in models[0].state_dict())


def test_the_counts_are_those_of_the_fused_form():
    """The same ViT in both libraries: units of the same kinds and sizes."""
    fused = build_model(config(timm('vit_tiny_patch16_224', patch_size=8, mlp_ratio=2))).backbone
    apart = build_model(config(hf('vit', intermediate_size=32))).backbone
    counts = [Counter((u.kind, u.shape) for u in units_of(b)) for b in (fused, apart)]
    assert counts[0] == counts[1] and sum(n for (kind, _), n in counts[0].items() if kind in 'qkv') == 6


@pytest.mark.parametrize('name', ['fused', 'apart'])
def test_the_class_token_is_found_wherever_it_is(name):
    backbone = build_model(config(BACKBONES[name])).backbone
    found, token = class_token_of(backbone)
    assert token.numel() == 16 and dict(backbone.named_parameters())[found] is token
