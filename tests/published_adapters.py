"""Bottlenecks, convolutions and methods for video as their authors ran them, with their tensors under our names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import timm
import torch
from published import Case, Hosted, Published, Tensors, build, named, one_block, timm_vit
from torch import Tensor, nn

from vpetl_mm.petl import adapt


def adapter_plus(of: Published) -> Hosted:
    """Adapter+ behind a block that passes its input on."""
    told = of.told
    options = dict(d_bottle=told['bottleneck'], learn_scale=told['scaling'], act=told['act'])
    plan = one_block(told['dim'], dict(plus=dict(type='AdapterPlus', **options)))
    parts = {'bottleneck.1': 'down', 'bottleneck.4': 'up'}
    names = {f'{k}.{n}': f'blocks.0.deltas.plus.{v}.{n}' for k, v in parts.items() for n in ('weight', 'bias')}
    return Hosted(plan, plan.model.blocks[0], named(names | {'scaling': 'blocks.0.deltas.plus.scale'}))


def _of_convpass(of: Published, at: str, path: str) -> tuple[dict[str, Any], Callable[[Tensors], Tensors]]:
    names = {
        f'adapter_{k}.{n}': f'{path}.deltas.conv.{k}.{n}' for k in ('down', 'conv', 'up') for n in ('weight', 'bias')
    }
    return dict(conv=dict(type='Convpass', at=at, d_bottle=of.told['bottleneck'])), named(names)


def convpass(of: Published, at: str) -> Hosted:
    """Convpass beside an MLP that gives zero; or beside the attention, with norms that do nothing: h + f(h) - h."""
    told = of.told
    deltas, ours = _of_convpass(of, at, 'blocks.0.mlp' if at == 'mlp' else 'blocks.0')
    plan = one_block(told['dim'], deltas, img_size=8 * told['grid'][0], norm_layer=nn.Identity)
    block = plan.model.blocks[0]
    run = (lambda x: block.drop_path2(block.mlp(x))) if at == 'mlp' else lambda x: block(x) - x
    return Hosted(plan, run, ours)


def timm_swin(width: int, size: list[int], deltas: Mapping[str, Any], run: Callable[..., Tensor]) -> Hosted:
    """The second block of timm's Swin, whose windows are shifted and padded; its weights are zero, without norms."""
    sizes = dict(img_size=tuple(4 * n for n in size), embed_dim=width, depths=(2,), num_heads=(2,), window_size=4)
    model = timm.models.SwinTransformer(**sizes, num_classes=2).eval()
    for parameter in model.layers.parameters():
        nn.init.zeros_(parameter)
    block = model.layers[0].blocks[1]
    block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    plan = adapt(model, deltas, train=[])
    return Hosted(
        plan, lambda x: run(block, x.unflatten(1, tuple(size))).flatten(1, 2), dict, ('layers.0.blocks.0.',)
    )


def convpass_swin(of: Published, at: str) -> Hosted:
    """Convpass in a Swin; see :func:`convpass`."""
    deltas, ours = _of_convpass(of, at, 'layers.0.blocks.1.mlp' if at == 'mlp' else 'layers.0.blocks.1')
    run = (lambda b, x: b.drop_path2(b.mlp(x))) if at == 'mlp' else lambda b, x: b(x) - x
    return replace(timm_swin(of.told['dim'], of.told['grid'], deltas, run), ours=ours)


def _of_mona(of: Published, at: str, path: str) -> tuple[dict[str, Any], Callable[[Tensors], Tensors]]:
    parts = {'project1': 'down', 'project2': 'up', 'norm': 'norm', 'adapter_conv.projector': 'pointwise'}
    parts |= {f'adapter_conv.conv{i + 1}': f'depthwise.{i}' for i in range(3)}
    names = {f'{k}.{n}': f'{v}.{n}' for k, v in parts.items() for n in ('weight', 'bias')}
    names |= dict(gamma='s1', gammax='s2')
    options = dict(d_bottle=of.told['bottleneck'], kernels=of.told['kernels'])
    ours = named({k: f'{path}.deltas.mona.{v}' for k, v in names.items()})
    return dict(mona=dict(type='Mona', at=at, **options)), ours


def mona(of: Published, at: str) -> Hosted:
    """Mona on the stream of a Swin's block that passes it on."""
    deltas, ours = _of_mona(of, at, 'layers.0.blocks.1')
    return replace(timm_swin(of.told['dim'], of.told['hw'], deltas, lambda block, x: block(x)), ours=ours)


def mona_built(of: Published, at: str) -> Hosted:
    """The same in mmpretrain's Swin, from a config."""
    size, width, path = of.told['hw'], of.told['dim'], 'backbone.stages.0.blocks.1'
    deltas, ours = _of_mona(of, at, path)
    arch = dict(embed_dims=width, depths=[2], num_heads=[2])
    sizes = dict(arch=arch, img_size=[4 * n for n in size], window_size=4, out_indices=(0,))
    head = dict(type='PETLImageHead', num_classes=2, in_channels=width, bn=False)
    model = build(
        dict(type='SwinTransformer', **sizes), deltas, [], head=head, neck=dict(type='GlobalAveragePooling')
    )
    for name, parameter in model.backbone.stages.named_parameters():
        if 'deltas' not in name:
            nn.init.zeros_(parameter)
    block = model.get_submodule(path)
    return Hosted(model.plan, lambda x: block(x, tuple(size)), ours, ('backbone.stages.0.blocks.0.',))


def compacter(of: Published) -> Hosted:
    """Compacter behind attention and MLP, here one behind the other: their layers are the identity."""
    told, width = of.told, of.input.shape[-1]
    deltas = dict(phm=dict(type='Compacter', n=told['n'], rank=told['rank'], d_bottle=told['bottleneck']))
    plan = one_block(width, deltas, mlp_ratio=1, act_layer=nn.Identity)
    block = plan.model.blocks[0]
    for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        nn.init.eye_(layer.weight)
    names = dict(phm_rule='deltas.phm.A')
    for theirs, host in dict(attn='attn.proj', ffn='mlp').items():
        for layer in ('down', 'up'):
            for k, v in dict(W_left='s', W_right='t', b='b').items():
                own = f'blocks.0.{host}.deltas.phm.{layer}.{v}'
                names[f'{theirs}_adapter.adapters.t.{layer}_sampler.{k}'] = own
    return Hosted(plan, lambda x: block.drop_path2(block.mlp(block.attn.proj(x))), named(names))


def phm(of: Published) -> Hosted:
    """A hypercomplex layer of full rank: Compacter's first, by itself, as an activation follows it."""
    d_in, d_out = of.input.shape[-1], of.output.shape[-1]
    deltas = dict(phm=dict(type='Compacter', at='proj', n=of.told['n'], rank=None, d_bottle=d_out, act='ReLU'))
    plan = one_block(d_in, deltas)
    at, delta = 'blocks.0.attn.proj.deltas.phm', plan.model.blocks[0].attn.proj.deltas['phm']
    names = {'phm_rule': 'deltas.phm.A', 'W': f'{at}.down.B', 'b': f'{at}.down.b'}
    run = lambda x: nn.functional.linear(x, delta.down.weight(delta.shared.A), delta.down.b)  # noqa: E731
    return Hosted(plan, run, named(names), (f'{at}.up.',))


def mhpa(of: Published) -> Hosted:
    """The multi-head parallel adapter, or the one with one head, in timm's attention."""
    told, multi = of.told, of.told['attn_mode'].startswith('prefix')
    deltas = dict(mhpa=dict(type='MHPA', num_tokens=told['l'], multi_head=multi))
    plan = one_block(told['dim'], deltas, num_heads=told['heads'])
    attention, at = plan.model.blocks[0].attn, 'blocks.0.attn.deltas.mhpa'
    for n in ('weight', 'bias'):
        qkv = torch.cat([of.frozen[f'attn.{slot}_proj.{n}'] for slot in 'qkv'])
        attention.load_state_dict({f'qkv.{n}': qkv, f'proj.{n}': of.frozen[f'attn.out_proj.{n}']}, strict=False)
    names = {f'prefix.encoder_attn_{k}.0.weight': f'{at}.{v}' for k, v in dict(key='K', value='V').items()}
    for n in ('weight', 'bias'):
        names |= {f'attn.ef_transform_layer_norm.{n}': f'{at}.norm.{n}'}
        parts = dict(adapter_layer_norm_before='norm', down_proj='down', up_proj='up')
        names |= {f'attn.ef_attn_adapter.{k}.{n}': f'{at}.{v}.{n}' for k, v in parts.items()}
    return Hosted(plan, attention, named(names))


def st_adapter(of: Published, at: str) -> Hosted:
    """ST-Adapter on the stream of a block that passes it on."""
    told = of.told
    options = dict(d_bottle=told['adapter_channels'], kernel=told['kernel'], num_frames=told['scalars']['T'])
    plan = one_block(told['in_channels'], dict(st=dict(type='STAdapter', at=at, **options)), img_size=24)
    parts = dict(fc1='down', conv='conv', fc2='up')
    names = {f'{k}.{n}': f'blocks.0.deltas.st.{v}.{n}' for k, v in parts.items() for n in ('weight', 'bias')}
    return Hosted(plan, plan.model.blocks[0], named(names))


def aim(of: Published) -> Hosted:
    """AIM's block: the attention over time, and the adapters behind attention and beside the MLP."""
    told, r = of.told, of.trained['T_Adapter.D_fc1.bias'].shape[0]
    deltas = dict(
        time=dict(type='AIMTime', num_tadapter=told['num_tadapter'], num_frames=told['num_frames'], d_bottle=r),
        space=dict(type='LinearAdapter', at='proj', d_bottle=r),
        joint=dict(type='AdaptMLP', act='GELU', d_bottle=r, scale=told['scale']),
    )
    norm = partial(nn.LayerNorm, eps=told['ln_eps'])
    plan = one_block(told['dim'], deltas, num_heads=told['heads'], norm_layer=norm, act_layer='quick_gelu')
    parts = {
        'attn.in_proj_{}': 'attn.qkv.{}',
        'attn.out_proj.{}': 'attn.proj.{}',
        'ln_1.{}': 'norm1.{}',
        'ln_2.{}': 'norm2.{}',
        'mlp.c_fc.{}': 'mlp.fc1.{}',
        'mlp.c_proj.{}': 'mlp.fc2.{}',
    }
    adapters = dict(
        T_Adapter_in='deltas.time.inward.{}',
        T_Adapter='deltas.time.outward.{}',
        S_Adapter='attn.proj.deltas.space.{}.out',
        MLP_Adapter='mlp.deltas.joint.{}',
    )
    for theirs, own in adapters.items():
        parts |= {f'{theirs}.D_fc{i}.{{}}': own.format(n) + '.{}' for i, n in enumerate(('down', 'up'), 1)}
    names = {k.format(n): f'blocks.0.{v}'.format(n) for k, v in parts.items() for n in ('weight', 'bias')}
    ours, block = named(names), plan.model.blocks[0]
    assert not plan.model.load_state_dict(ours(of.frozen), strict=False).unexpected_keys
    return Hosted(plan, lambda x: block(x.transpose(0, 1)).transpose(0, 1), ours)


def dtl(of: Published) -> Hosted:
    """DTL, or DTL+, in timm's ViT, whose head reads the mean of the patches."""
    told = of.told
    of.frozen = {f'fc_{k}' if k.startswith('norm.') else k: v for k, v in of.frozen.items()}
    names = {
        f'lora_dict.{i}.lora_{n}': f'blocks.{i}.deltas.dtl.{n}.weight' for i in told['lora_before'] for n in 'AB'
    }
    delta = dict(type='DTL', rank=told['rank'], beta=told['beta'], kernel=told['fusion'] or None)
    ours = named(names | {'lora_fusion.weight': 'deltas.dtl.conv.weight'})
    return timm_vit(of, dict(dtl=delta), ours, global_pool='avg')


CASES = (
    Case('adapter_plus*', "timm's block", adapter_plus),
    Case('convpass_vit*', "timm's block, beside the attention", partial(convpass, at='between')),
    Case('convpass_vit*', "timm's block, beside the MLP", partial(convpass, at='mlp')),
    Case('convpass_swin*', "timm's Swin, beside the attention", partial(convpass_swin, at='between')),
    Case('convpass_swin*', "timm's Swin, beside the MLP", partial(convpass_swin, at='mlp')),
    Case('mona_*', "timm's Swin, behind the attention", partial(mona, at='between')),
    Case('mona_*', "timm's Swin, behind the MLP", partial(mona, at='block')),
    Case('mona_*', "mmpretrain's Swin, config", partial(mona_built, at='between')),
    Case('compacter_phm*', "Compacter's first layer", phm),
    Case('compacter_shared*', "timm's block", compacter),
    Case('mam_mhpa*', "timm's attention", mhpa),
    Case('mam_attn_parallel*', "timm's attention", mhpa),
    Case('st_adapter_k*', "timm's block, in front", partial(st_adapter, at='block')),
    Case('st_adapter_k*', "timm's block, in front of the MLP", partial(st_adapter, at='between')),
    Case('aim_block*', "timm's block", aim),
    Case('dtl_*', 'timm ViT', dtl),
)
