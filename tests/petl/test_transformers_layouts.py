"""The place table's entries for the vision models of transformers, against names and counts written down by hand."""

from __future__ import annotations

import pytest
import torch
import transformers
from hf_hosts import HOSTS, V5, Host
from hf_methods import copy_of
from tiny import trainable

from vpetl_mm.petl import adapt, layout_of

BARE = ['vit_bare', 'dinov2_gated', 'dinov3_gated', 'siglip2_bare', 'videomae_bare', 'vjepa2_bare']
NAMES = [*BARE, 'siglip', 'swin', 'timesformer', 'vivit']


def both(*paths: str) -> set[str]:
    return {f'{path}.{kind}' for path in paths for kind in ('weight', 'bias')}


def below(host: Host, *paths: str) -> list[str]:
    """Paths below every block."""
    return [f'{block}.{path}' for block in host.blocks for path in paths]


def named(paths: list[str], *names: str) -> set[str]:
    return {f'{path}.{name}' for path in paths for name in names}


# the two norms of a block, the other norms, the patch embedding, and what else a host has, below the backbone
NORM12 = dict.fromkeys(('dinov2_gated', 'dinov3_gated', 'vjepa2_bare'), ('norm1', 'norm2'))
NORM12 |= dict.fromkeys(('siglip', 'siglip2_bare'), ('layer_norm1', 'layer_norm2'))
IN = '' if V5 else 'vision_model.'
LAST_NORM = {
    'dinov3_gated': both('norm'),
    'siglip': both('post_layernorm'),
    'siglip2_bare': both(f'{IN}post_layernorm'),
    'vjepa2_bare': both('encoder.layernorm'),
}
OTHER_NORMS = {
    'swin': both('embeddings.norm', 'encoder.layers.0.downsample.norm'),
    'timesformer': both(*below(HOSTS['timesformer'], 'temporal_layernorm')),
}
PATCHES = {
    'dinov3_gated': both('embeddings.patch_embeddings'),
    'siglip': both('embeddings.patch_embedding'),
    'siglip2_bare': both(f'{IN}embeddings.patch_embedding'),
    'vjepa2_bare': both('encoder.embeddings.patch_embeddings.proj'),
}
TIME = ('temporal_attention.attention.qkv', 'temporal_attention.output.dense', 'temporal_dense', 'temporal_layernorm')
POOL = both('head.attention.out_proj', 'head.layernorm', 'head.mlp.fc1', 'head.mlp.fc2')
POOL |= {'head.probe', 'head.attention.in_proj_weight', 'head.attention.in_proj_bias'}
TABLE = 'relative_position_bias.relative_position_bias_table' if V5 else 'relative_position_bias_table'
OTHERS = {
    'dinov2_gated': {'layer_scale': named(below(HOSTS['dinov2_gated'], 'layer_scale1', 'layer_scale2'), 'lambda1')},
    'dinov3_gated': {'layer_scale': named(below(HOSTS['dinov3_gated'], 'layer_scale1', 'layer_scale2'), 'lambda1')},
    'siglip': {'attn_pool': POOL},
    'siglip2_bare': {'attn_pool': {f'{IN}{name}' for name in POOL}},
    'timesformer': {'temporal': both(*below(HOSTS['timesformer'], *TIME))},
    'swin': {
        'attn.rpb': set(below(HOSTS['swin'], f'{HOSTS["swin"].below["attn"]}.{TABLE}')),
        'downsample': both('encoder.layers.0.downsample.norm') | {'encoder.layers.0.downsample.reduction.weight'},
    },
}
# of q, k and v
BIASES = {
    'dinov3_gated': ('q_proj.bias', 'v_proj.bias'),
    'videomae_bare': ('query.bias', 'value.bias') if V5 else ('q_bias', 'v_bias'),
}
# what is behind the encoder
BEHIND = {
    'vit_bare': ('pooler.',),
    'siglip': ('head.',),
    'siglip2_bare': (f'{IN}head.',),
    'vjepa2_bare': ('predictor.',),
}


def expected(name: str) -> dict[str, set[str]]:
    """Train name -> the parameters, below the backbone."""
    host = HOSTS[name]
    norm1, norm2 = (both(*below(host, n)) for n in NORM12.get(name, ('layernorm_before', 'layernorm_after')))
    biases = BIASES.get(name, tuple(f'{slot}.bias' for slot in host.slots))
    qkv = named(below(host, host.below['attn']), *(f'{slot}.weight' for slot in host.slots), *biases)
    fc1, fc2 = ((f,) if isinstance(f, str) else f for f in (host.below['fc1'], host.below['fc2']))
    parameters = [n for n, _ in copy_of(name).get_submodule(host.backbone).named_parameters()]
    last = LAST_NORM.get(name, both('layernorm'))
    return {
        'norm': norm1 | norm2 | last | OTHER_NORMS.get(name, set()),
        'norm1': norm1,
        'norm2': norm2,
        'last_norm': last,
        'attn.qkv': qkv,
        'attn.proj': both(*below(host, host.below['proj'])),
        'mlp.fc1': both(*below(host, *fc1)),
        'mlp.fc2': both(*below(host, *fc2)),
        'patch_embed': PATCHES.get(name, both('embeddings.patch_embeddings.projection')),
        'bias': {n for n in parameters if n.endswith('bias') and not n.startswith(BEHIND.get(name, 'none'))},
        **OTHERS.get(name, {}),
    }


@pytest.mark.parametrize('name', NAMES)
def test_train_names(name):
    at, groups = HOSTS[name].backbone, expected(name)
    model = copy_of(name)
    assert layout_of(model).groups.keys() == groups.keys()
    for group, members in groups.items():
        adapt(model, train=[group])
        assert trainable(model) == {f'{at}.{n}'.removeprefix('.') for n in members}, group


@pytest.mark.parametrize('name', HOSTS)
def test_sites(name):
    """Widths of what each place takes and gives; of q, k and v together where they are apart."""
    model, host = copy_of(name), HOSTS[name]
    layout = layout_of(model)
    for place in host.below:
        sites = [*layout.sites(model, place)]
        assert [site.name for site in sites] == host.at(place)
        widths = [24, 24, 48, 48] if name == 'swin' else [24] * len(sites)
        for site, d in zip(sites, widths, strict=True):
            wide = site.out_dim if place == 'fc1' else site.in_dim if place == 'fc2' else 0
            shapes = dict(qkv=(d, 3 * d), fc1=(d, wide), fc2=(wide, d)).get(place, (d, d))
            assert (site.in_dim, site.out_dim) == shapes and (wide == 0 or wide >= d)
            assert site.slots == ('qkv' if place == 'qkv' else '')
    assert layout.width(model) == (48 if name == 'swin' else 24)


BAPAT64 = dict(patt=dict(type='PATT', d_bottle=64), adapter=dict(type='AdaptMLP', d_bottle=64))


def bapat(d: int, r: int = 64) -> int:
    """Parameters in one block: Eq. 9 for k and v, and Eq. 6, with biases."""
    return (d * r + r) + (r * 2 * d + 2 * d) + (d * r + r) + (r * d + d)


def test_counts_at_full_size():
    """BAPAT-64 on V-JEPA 2's ViT-L, whose predictor stays as it is, and on VideoMAE's ViT-B."""
    sizes = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, patch_size=16, crop_size=256)
    sizes |= dict(frames_per_clip=64, pred_hidden_size=384, pred_num_hidden_layers=12, pred_num_attention_heads=12)
    base = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    with torch.device('meta'):
        jepa = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes))
        mae = transformers.VideoMAEModel(transformers.VideoMAEConfig(**base))
        plans = adapt(jepa, BAPAT64, []), adapt(mae, BAPAT64, [])
    assert [plan.count()['trainable'] for plan in plans] == [24 * bapat(1024), 12 * bapat(768)]
    assert (24 * bapat(1024), 12 * bapat(768)) == (7_941_120, 2_978_304)
    assert not [n for n, p in jepa.predictor.named_parameters() if p.requires_grad or '.deltas.' in n]
    assert all(p.is_meta for plan in plans for p in plan.parameters())
