"""Methods that change weights as their authors ran them, with their tensors under our names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from published import (
    Case,
    Hosted,
    Published,
    Tensors,
    built_vit,
    mmpretrain_vit,
    named,
    one_block,
    one_layer,
    openmmlab,
    timm_vit,
)
from torch import nn


def ssf(of: Published, host: Callable[..., Hosted]) -> Hosted:
    """SSF behind every operation."""
    parts = {
        '{}_1': 'norm1',
        '{}_2': 'norm2',
        'attn.{}_1': 'attn.qkv',
        'attn.{}_2': 'attn.proj',
        'mlp.{}_1': 'mlp.fc1',
        'mlp.{}_2': 'mlp.fc2',
    }
    places = {'{}_1': 'norm', 'patch_embed.{}_1': 'patch_embed.proj'}
    places |= {f'blocks.{i}.{k}': f'blocks.{i}.{v}' for i in range(of.told['depth']) for k, v in parts.items()}
    kinds = dict(ssf_scale='gamma', ssf_shift='beta')
    names = {k.format(t): f'{v}.deltas.ssf.{own}' for k, v in places.items() for t, own in kinds.items()}
    return host(of, dict(ssf=dict(type='SSF')), named(names))


def fact(of: Published, host: Callable[..., Hosted]) -> Hosted:
    """FacT, whose authors multiply row vectors from the right and have a linear layer for each core."""
    told = of.told
    tucker = told['method'] == 'FacT-TK'
    r, columns = told['rank'], 12 * told['depth']
    form = dict(form='TK', published=True) if tucker else dict(form='TT')
    shared = {'FacTu.weight': 'U.weight', 'FacTv.weight': 'V.weight', 'FacTc': 'C', 'FacTp': 'P'}

    def ours(part: Tensors) -> Tensors:
        out = {}
        for name, value in part.items():
            owner, _, theirs = name.partition('_FacTs')[0].rpartition('.')
            if name in shared:
                out[f'deltas.fact.{shared[name]}'] = value[:, :columns] if name == 'FacTp' else value
            elif 'FacTs' not in name:
                out[name] = value
            elif theirs == 'q':
                qkv = [part[name.replace('q_FacTs', f'{slot}_FacTs')].t() for slot in 'qkv']
                out[f'{owner}.qkv.deltas.fact.S'] = torch.stack(qkv)
            elif theirs in ('proj', 'fc1', 'fc2'):
                slices = value.split(r, dim=1 if theirs == 'fc2' else 0)
                out[f'{owner}.{theirs}.deltas.fact.S'] = torch.stack([s.t() for s in slices])
        return out

    return host(of, dict(fact=dict(type='FacT', rank=r, scale=told['s'], **form)), ours)


REPADAPTER = {
    'conv_A.weight': 'down.weight',
    'conv_A.bias': 'down.bias',
    'conv_B.weight': 'up',
    'conv_B.bias': 'bias',
}


def _rep_adapter(of: Published) -> dict[str, Any]:
    told = of.told
    return dict(type='RepAdapter', d_bottle=told['hidden'], groups=told['groups'], scale=told['s'])


def rep_adapter(of: Published) -> Hosted:
    """RepAdapter alone: the layer behind it is the identity."""
    width = of.told['dim']
    names = {k: f'fc1.deltas.delta.{v}' for k, v in REPADAPTER.items()}
    return one_layer(torch.eye(width), torch.zeros(width), _rep_adapter(of), names)


def _block_names() -> dict[str, str]:
    hosts = dict(adapter_attn='attn.qkv', adapter_mlp='mlp.fc1')
    names = {f'{t}.{k}': f'{h}.deltas.rep.{v}' for t, h in hosts.items() for k, v in REPADAPTER.items()}
    frozen = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
    names |= {f'{n}.{kind}': f'{n}.{kind}' for n in frozen for kind in ('weight', 'bias')}
    return {f'block.{k}': f'blocks.0.{v}' for k, v in names.items()}


def rep_adapter_block(of: Published) -> Hosted:
    """RepAdapter in front of attention and MLP, in timm's block."""
    ours, norm = named(_block_names()), partial(nn.LayerNorm, eps=of.told['ln_eps'])
    plan = one_block(of.told['dim'], dict(rep=_rep_adapter(of)), num_heads=of.told['heads'], norm_layer=norm)
    assert not plan.model.load_state_dict(ours(of.frozen), strict=False).unexpected_keys
    return Hosted(plan, plan.model.blocks[0], ours)


def rep_adapter_built(of: Published) -> Hosted:
    """RepAdapter in the block of mmpretrain's ViT, from a config."""
    names = named(_block_names())
    model = mmpretrain_vit(of, dict(rep=_rep_adapter(of)), of.told['dim'], 1, [])
    assert not model.load_state_dict(openmmlab(names(of.frozen)), strict=False).unexpected_keys
    return Hosted(model.plan, model.backbone.layers[0], lambda part: openmmlab(names(part)))


def dora(of: Published) -> Hosted:
    """DoRA of one linear layer."""
    base = {n: of.frozen[f'lin.base_layer.{n}'] for n in ('weight', 'bias')}
    parts = dict(lora_A='A.out.weight', lora_B='B.out.weight', lora_magnitude_vector='m.out')
    names = {f'lin.{k}.default.weight': f'fc1.deltas.delta.{v}' for k, v in parts.items()} | {
        'lin.weight': 'fc1.weight'
    }
    return one_layer(**base, delta=dict(type='DoRA', rank=of.told['rank'], alpha=of.told['alpha']), names=names)


def vera(of: Published) -> Hosted:
    """VeRA of one linear layer, with the authors' random matrices."""
    base = {n: of.frozen[f'lin.base_layer.{n}'] for n in ('weight', 'bias')}
    names = {f'lin.vera_lambda_{n}.default': f'fc1.deltas.delta.{n}.out' for n in 'bd'}
    names |= {f'lin.vera_{n}.default': f'deltas.delta.{n}' for n in 'AB'}
    of.trained.update(of.part('b/'))
    return one_layer(**base, delta=dict(type='VeRA', rank=of.told['rank']), names=names)


def kadaptation(of: Published) -> Hosted:
    """KAdaptation of q: what it adds to a layer that is zero."""
    told, width = of.told, of.told['dim']
    plan = one_block(
        width, dict(k=dict(type='KAdaptation', n=told['n'], scale=told['scale'])), num_heads=told['heads']
    )
    at, names = 'blocks.0.attn.qkv.deltas.k', {'attn.b': 'blocks.0.attn.qkv.deltas.k.c'}
    for i, slot in enumerate('qv', 1):
        names |= {f'phm_rule{i}_left': f'deltas.k.a.{slot}', f'phm_rule{i}_right': f'deltas.k.b.{slot}'}
        names |= {
            f'attn.{slot}_proj_adapter1_{side}': f'{at}.{n}.{slot}' for side, n in dict(left='u', right='v').items()
        }
    return Hosted(plan, lambda x: plan.model.blocks[0].attn.qkv(x)[..., :width], named(names))


CASES = (
    Case('ssf_vit*', 'timm ViT', partial(ssf, host=timm_vit), True),
    Case('ssf_vit*', 'mmpretrain ViT, config', partial(ssf, host=built_vit), True),
    Case('fact_t[tk]_*', 'timm ViT', partial(fact, host=timm_vit), True),
    Case('fact_t[tk]_*', 'mmpretrain ViT, config', partial(fact, host=built_vit), True),
    Case('repadapter_g*', "timm's fc1", rep_adapter, True),
    Case('repadapter_block*', "timm's block", rep_adapter_block, True),
    Case('repadapter_block*', "mmpretrain's block, config", rep_adapter_built, True),
    Case('dora_linear*', "timm's fc1", dora, True),
    Case('vera_linear*', "timm's fc1", vera, True),
    Case('kadaptation_q*', "timm's qkv", kadaptation, True),
)
