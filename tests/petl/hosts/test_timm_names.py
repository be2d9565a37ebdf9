"""Real model names of timm, without memory for weights: served or refused in a sentence, and counted by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import tiny
import torch

from vpetl_mm.petl import adapt

METHODS = {
    'bapat': dict(patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4)),
    'residual': dict(adapter=dict(type='AdaptMLP', d_bottle=4, source='residual')),
    'lora': dict(one=dict(type='LoRA', rank=2), two=dict(type='LoRA', at='proj', rank=2)),
    'fc': dict(one=dict(type='LoRA', at='fc1', rank=2), two=dict(type='LoRA', at='fc2', rank=2)),
    'prefix': dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=4)),
    'prompt': dict(prompt=dict(type='Prompt', num_tokens=3)),
    'concat': dict(patt=dict(type='PATT', d_bottle=4, mode='concat')),
    'shallow': dict(prompt=dict(type='Prompt', num_tokens=3, deep=False)),
}
ONE, STAGES = dict(depth=1), dict(depths=(1, 1, 1, 1))
JOINED, ALL = ('prefix', 'prompt', 'concat'), tuple(METHODS)
TOKENS = ('shallow',)
PARALLEL = tuple(method for method in ALL if method != 'shallow')
# name -> how to make it small, what it refuses, and a word of each sentence
NAMES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    'vit_base_patch14_reg4_dinov2': (ONE, (), ''),
    'vit_giant_patch14_dinov2': (ONE, (), ''),
    'vit_so400m_patch14_siglip_224': (ONE, (), ''),
    'vit_large_patch14_clip_quickgelu_224': (ONE, (), ''),
    'vit_base_r50_s16_224': (ONE, (), ''),
    'deit3_small_patch16_224': (ONE, (), ''),
    'aimv2_large_patch14_224': (ONE, (), ''),
    'vit_7b_patch16_dinov3': (ONE, TOKENS, 'Eva'),
    'eva_giant_patch14_224': (ONE, TOKENS, 'Eva'),
    'eva02_large_patch14_448': (ONE, TOKENS, 'Eva'),
    'vit_pe_core_tiny_patch16_384': (ONE, TOKENS, 'Eva'),
    'vit_betwixt_patch16_rope_reg4_gap_256': (ONE, TOKENS, 'Eva'),
    'naflexvit_base_patch16_siglip': (ONE, TOKENS, 'NaFlexVit'),
    'swin_s3_tiny_224': (STAGES, TOKENS, 'SwinTransformer'),
    'hiera_small_abswin_256': (dict(stages=(1, 1, 1, 1)), ('concat', 'shallow'), 'Hiera'),
    # norms behind attention and MLP
    'vit_base_patch16_rpn_224': (ONE, ('residual',), 'ResPostBlock'),
    'eva02_enormous_patch14_clip_224': (ONE, ('residual', 'shallow'), 'Eva'),
    # the difference of two attentions
    'vit_dlittle_patch16_reg1_gap_256': (ONE, JOINED, 'VisionTransformer'),
    # attention and MLP side by side
    'vit_base_patch16_xp_224': (ONE, PARALLEL, 'VisionTransformer'),
    'vit_dpwee_patch16_reg1_gap_256': (ONE, PARALLEL, 'VisionTransformer'),
    'vit_base_patch16_18x2_224': (ONE, PARALLEL, 'VisionTransformer'),
    # fewer heads of keys than of queries, in some blocks
    'vit_large_patch16_sapiens2': ({}, ('bapat', 'lora', *JOINED, 'shallow'), ''),
    # a gated MLP with layers of other names
    'vitamin_small_224': (ONE, (), ''),
    # no entry
    'beit_base_patch16_224': (ONE, ALL, 'place table'),
    'swinv2_tiny_window8_256': (STAGES, ALL, 'place table'),
}


@pytest.mark.parametrize('name', NAMES)
def test_a_model_is_served_or_refused_in_a_sentence(name):
    sizes, refused, word = NAMES[name]
    with torch.device('meta'):
        model = timm.create_model(name, num_classes=3, **sizes)
        for method, deltas in METHODS.items():
            own = copy.deepcopy(model)
            if method in refused:
                with tiny.refused(word):
                    adapt(own, deltas)
            else:
                counted = adapt(own, deltas).count()['by']
                assert all(counted[delta] for delta in deltas)


# Counts at full size: (parameters of one block's deltas by hand, number of blocks)


def bottleneck(d: int, r: int, out: int) -> int:
    """Two linear layers with biases."""
    return d * r + r + r * out + out


B, L = 768, 1024
BAPAT = dict(patt=dict(type='PATT', d_bottle=64), adapter=dict(type='AdaptMLP', d_bottle=64))
COUNTS = [
    # 12 (49,216 + 99,840) and 12 x 99,136
    (
        'vit_base_patch16_dinov3.lvd1689m',
        BAPAT,
        dict(patt=12 * bottleneck(B, 64, 2 * B), adapter=12 * bottleneck(B, 64, B)),
    ),
    (
        'vit_large_patch14_reg4_dinov2',
        BAPAT,
        dict(patt=24 * bottleneck(L, 64, 2 * L), adapter=24 * bottleneck(L, 64, L)),
    ),
    ('eva02_base_patch14_224', dict(lora=dict(type='LoRA', rank=8)), dict(lora=12 * 2 * 8 * (B + B))),
    # a gated MLP: of each half, width 2048
    ('eva02_base_patch14_224', dict(lora=dict(type='LoRA', at='fc1', rank=8)), dict(lora=12 * 2 * 8 * (B + 2048))),
    ('vit_so400m_patch14_siglip_224', dict(prompt=dict(type='Prompt', num_tokens=10)), dict(prompt=27 * 10 * 1152)),
    # the width doubles in the first block of each of four stages, of 2, 3, 16 and 3 blocks
    (
        'hiera_base_224',
        dict(patt=dict(type='PATT', d_bottle=16)),
        dict(
            patt=sum(
                n * bottleneck(w, 16, 2 * w) + bool(before) * bottleneck(before, 16, 2 * w)
                for w, before, n in ((96, 0, 2), (192, 96, 2), (384, 192, 15), (768, 384, 2))
            )
        ),
    ),
    (
        'swin_base_patch4_window7_224',
        BAPAT,
        dict(
            patt=sum(n * bottleneck(w, 64, 2 * w) for w, n in ((128, 2), (256, 2), (512, 18), (1024, 2))),
            adapter=sum(n * bottleneck(w, 64, w) for w, n in ((128, 2), (256, 2), (512, 18), (1024, 2))),
        ),
    ),
]


@pytest.mark.parametrize(('name', 'deltas', 'expected'), COUNTS, ids=[f'{n}-{"-".join(d)}' for n, d, _ in COUNTS])
def test_counts_at_full_size(name, deltas, expected):
    with torch.device('meta'):
        model = timm.create_model(name, pretrained=False, num_classes=51)
        width = model.num_features
        counts = adapt(model, deltas).count()
    assert counts['by'] == {**expected, 'head': 51 * width + 51}
    assert counts['trainable'] == sum(counts['by'].values())
    assert counts['total'] == sum(p.numel() for p in model.parameters())
