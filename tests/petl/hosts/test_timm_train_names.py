"""What each name in ``train`` stands for on the hosts of timm, torchvision and OpenCLIP, written down by hand."""

from __future__ import annotations

import pytest
import tiny
from timm_hosts import HOSTS, plain

from vpetl_mm.petl import adapt, layout_of

# last parts of the names of parameters
PARAMETERS = (
    *('weight', 'bias', 'gamma', 'gamma_1', 'gamma_2', 'q_bias', 'v_bias', 'latent'),
    *('in_proj_weight', 'in_proj_bias', 'relative_position_bias_table'),
)


def of(host: str, *names: str) -> set[str]:
    """Full names: ``'norm1'`` is a weight and a bias of each block, ``'^norm'`` is outside the blocks."""
    expected = set()
    for name in names:
        is_parameter = name.rpartition('.')[2] in PARAMETERS
        for end in (name,) if is_parameter else (f'{name}.weight', f'{name}.bias'):
            if end.startswith('^'):
                expected.add(end[1:])
            else:
                expected |= {f'{block}.{end}' for block in HOSTS[host].blocks}
    return expected


MLP_BIAS = ('mlp.fc1.bias', 'mlp.fc2.bias')
BLOCK = ('norm1.bias', 'norm2.bias', 'attn.proj.bias', *MLP_BIAS)
COMMON = {
    'norm1': ('norm1',),
    'norm2': ('norm2',),
    'attn.qkv': ('attn.qkv',),
    'attn.proj': ('attn.proj',),
    'mlp.fc1': ('mlp.fc1',),
    'mlp.fc2': ('mlp.fc2',),
    'patch_embed': ('^patch_embed.proj',),
    'last_norm': ('^norm',),
    'norm': ('norm1', 'norm2', '^norm'),
    'bias': (*BLOCK, 'attn.qkv.bias', '^patch_embed.proj.bias', '^norm.bias'),
    'head': ('^head',),
}
SCALE = ('ls1.gamma', 'ls2.gamma')
EVA_SCALE = {'layer_scale': ('gamma_1', 'gamma_2')}
APART = ('attn.q_proj', 'attn.k_proj', 'attn.v_proj')
POOL = ('q', 'kv', 'proj', 'norm', 'mlp.fc1', 'mlp.fc2')
WEIGHTS = ('norm1.weight', 'norm2.weight')
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    'vit': COMMON,
    # RMSNorm has no bias
    'vit_qk_norm': {
        **COMMON,
        'norm1': ('norm1.weight',),
        'norm2': ('norm2.weight',),
        'attn.qkv': ('attn.qkv.weight',),
        'last_norm': ('^norm.weight',),
        'norm': (*WEIGHTS, 'attn.q_norm.weight', 'attn.k_norm.weight', '^norm.weight'),
        'bias': ('attn.proj.bias', *MLP_BIAS, '^patch_embed.proj.bias'),
    },
    'dinov2': {**COMMON, 'layer_scale': SCALE},
    'siglip': {**COMMON, 'attn_pool': ('^attn_pool.latent', *(f'^attn_pool.{name}' for name in POOL))},
    'deit': {**COMMON, 'head': ('^head', '^head_dist')},
    'clip': {
        **COMMON,
        'patch_embed': ('^patch_embed.proj.weight',),
        'norm': ('norm1', 'norm2', '^norm', '^norm_pre'),
        'bias': (*BLOCK, 'attn.qkv.bias', '^norm.bias', '^norm_pre.bias'),
    },
    'mae': {
        **COMMON,
        'last_norm': ('^fc_norm',),
        'norm': ('norm1', 'norm2', '^fc_norm'),
        'bias': (*BLOCK, 'attn.qkv.bias', '^patch_embed.proj.bias', '^fc_norm.bias'),
    },
    'eva02': {
        **COMMON,
        'attn.qkv': ('attn.qkv.weight', 'attn.q_bias', 'attn.v_bias'),
        'last_norm': ('^fc_norm',),
        'norm': ('norm1', 'norm2', '^fc_norm'),
        'bias': (*BLOCK, 'attn.q_bias', 'attn.v_bias', '^patch_embed.proj.bias', '^fc_norm.bias'),
    },
    'eva02_apart': {
        **COMMON,
        'attn.qkv': ('attn.q_proj', 'attn.k_proj.weight', 'attn.v_proj'),
        'mlp.fc1': ('mlp.fc1_g', 'mlp.fc1_x'),
        'mlp.norm': ('mlp.norm',),
        'last_norm': ('^fc_norm',),
        'norm': ('norm1', 'norm2', 'mlp.norm', '^fc_norm'),
        'bias': (
            *('norm1.bias', 'norm2.bias', 'attn.proj.bias', 'attn.q_proj.bias', 'attn.v_proj.bias', 'mlp.fc1_g.bias'),
            *('mlp.fc1_x.bias', 'mlp.norm.bias', 'mlp.fc2.bias', '^patch_embed.proj.bias', '^fc_norm.bias'),
        ),
    },
    'dinov3': {
        **COMMON,
        **EVA_SCALE,
        'attn.qkv': ('attn.qkv.weight',),
        'bias': (*BLOCK, '^patch_embed.proj.bias', '^norm.bias'),
    },
    'swin': {
        **COMMON,
        'head': ('^head.fc',),
        'attn.rpb': ('attn.relative_position_bias_table',),
        'downsample': ('^layers.1.downsample.norm', '^layers.1.downsample.reduction.weight'),
        'patch_embed': ('^patch_embed.proj', '^patch_embed.norm'),
        'norm': ('norm1', 'norm2', '^patch_embed.norm', '^layers.1.downsample.norm', '^norm'),
        'bias': (
            *(*BLOCK, 'attn.qkv.bias', '^patch_embed.proj.bias', '^patch_embed.norm.bias'),
            *('^layers.1.downsample.norm.bias', '^norm.bias'),
        ),
    },
    'hiera': {
        **COMMON,
        'head': ('^head.fc',),
        'downsample': tuple(f'^blocks.{i}.proj' for i in (1, 2, 3)),
        'last_norm': ('^head.norm',),
        'norm': ('norm1', 'norm2', '^head.norm'),
        'bias': (
            *(*BLOCK, 'attn.qkv.bias', '^patch_embed.proj.bias', '^head.norm.bias'),
            *(f'^blocks.{i}.proj.bias' for i in (1, 2, 3)),
        ),
    },
    'naflex_gated': {
        **COMMON,
        **EVA_SCALE,
        'attn.qkv': APART,
        'patch_embed': ('^embeds.proj',),
        'last_norm': ('^fc_norm',),
        'norm': ('norm1', 'norm2', 'attn.q_norm', 'attn.k_norm', '^fc_norm'),
        'bias': (
            *(*BLOCK, *(f'{name}.bias' for name in APART), 'attn.q_norm.bias', 'attn.k_norm.bias', 'attn.gate.bias'),
            *('^embeds.proj.bias', '^fc_norm.bias'),
        ),
    },
    'torchvision': {
        'norm1': ('ln_1',),
        'norm2': ('ln_2',),
        'attn.qkv': ('self_attention.in_proj_weight', 'self_attention.in_proj_bias'),
        'attn.proj': ('self_attention.out_proj',),
        'mlp.fc1': ('mlp.0',),
        'mlp.fc2': ('mlp.3',),
        'patch_embed': ('^conv_proj',),
        'last_norm': ('^encoder.ln',),
        'norm': ('ln_1', 'ln_2', '^encoder.ln'),
        'bias': (
            *('ln_1.bias', 'ln_2.bias', 'self_attention.in_proj_bias', 'self_attention.out_proj.bias'),
            *('mlp.0.bias', 'mlp.3.bias', '^conv_proj.bias', '^encoder.ln.bias'),
        ),
        'head': ('^heads.head',),
    },
    'open_clip': {
        'norm1': ('ln_1',),
        'norm2': ('ln_2',),
        'attn.qkv': ('attn.in_proj_weight', 'attn.in_proj_bias'),
        'attn.proj': ('attn.out_proj',),
        'mlp.fc1': ('mlp.c_fc',),
        'mlp.fc2': ('mlp.c_proj',),
        'patch_embed': ('^conv1.weight',),
        'last_norm': ('^ln_post',),
        'layer_scale': ('ls_1.gamma', 'ls_2.gamma'),
        'norm': ('ln_1', 'ln_2', '^ln_pre', '^ln_post'),
        'bias': (
            *('ln_1.bias', 'ln_2.bias', 'attn.in_proj_bias', 'attn.out_proj.bias', 'mlp.c_fc.bias'),
            *('mlp.c_proj.bias', '^ln_pre.bias', '^ln_post.bias'),
        ),
    },
}
KNOWN = {name: groups for name, groups in EXPECTED.items() if name in HOSTS}


@pytest.mark.parametrize('name', KNOWN)
def test_train_names(name):
    """Each name, and that there is no other that matches anything."""
    groups = KNOWN[name]
    for group, names in groups.items():
        model = plain(name)
        adapt(model, train=[group])
        assert tiny.trainable(model) == of(name, *names), group
    for group in {*layout_of(plain(name)).groups} - {*groups}:
        with tiny.refused(group, 'matches nothing'):
            adapt(plain(name), train=[group])


@pytest.mark.parametrize('name', KNOWN)
def test_deltas_are_in_no_group_of_weights(name):
    deltas = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2))
    model = plain(name)
    plan = adapt(model, deltas, train=['bias', 'norm'])
    own = {n for n in tiny.trainable(model) if '.deltas.' not in n}
    assert own == of(name, *KNOWN[name]['bias'], *KNOWN[name]['norm'])
    assert {plan.owners[n] for n in tiny.trainable(model) - own} == {*deltas}
