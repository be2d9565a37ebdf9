"""The authors' tensors of the methods, put on real hosts, and how far the methods here are off.

``python tests/published.py`` prints the errors of every case as a table.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from golden import DATA, VIT_IMAGE
from golden import renamed as openmmlab_name
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import Plan, adapt

SHARED = Path(__file__).parents[2] / 'shared/methods/golden'
FILES = {path.stem: path for folder in (SHARED, DATA) for path in sorted(folder.glob('*.npz'))}
Tensors = dict[str, Tensor]


class Published:
    """One reference file: what its authors' module makes of ``input``, in eval mode.

    Args:
        path: of the file; see the definitions beside it for its keys.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.told: dict[str, Any] = json.loads(str(file['config']))
            self.tensors: Tensors = {k: torch.from_numpy(file[k]) for k in file.files if k != 'config'}
        self.input, self.output, self.gx = (self.tensors[k] for k in ('input', 'output', 'gx'))
        trained, weights = {*self.told['trained']}, self.part('w/')
        self.frozen = {k: v for k, v in weights.items() if k not in trained}
        self.trained = {k: v for k, v in weights.items() if k in trained}
        self.grads, self.merged = self.part('g/'), self.part('merged/')

    def part(self, prefix: str) -> Tensors:
        """The tensors whose names start with ``prefix``, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Hosted:
    """A published method on a library's model, in eval mode.

    Args:
        plan: of the model.
        run: what gives the published output from the published input.
        ours: translates the authors' tensors, weights or gradients, to our names.
    """

    plan: Plan
    run: Callable[[Tensor], Tensor]
    ours: Callable[[Tensors], Tensors]


def named(names: Mapping[str, str]) -> Callable[[Tensors], Tensors]:
    """Return what renames tensors; those that are not in ``names`` keep theirs."""
    return lambda part: {names.get(name, name): value for name, value in part.items()}


# Hosts


def timm_vit(of: Published, deltas: Mapping[str, Any], ours: Callable[[Tensors], Tensors]) -> Hosted:
    """timm's ViT, whose parts are called as in the authors' copies of it."""
    told, frozen = of.told, of.frozen
    model = timm.models.VisionTransformer(
        img_size=of.input.shape[-1],
        patch_size=told['patch'],
        embed_dim=told['embed'],
        depth=told['depth'],
        num_heads=told['heads'],
        num_classes=of.output.shape[-1],
        norm_layer=partial(nn.LayerNorm, eps=told['ln_eps']),
    )
    lacking, unknown = model.load_state_dict(frozen, strict=False)
    assert not unknown and {*lacking} == {'head.weight', 'head.bias'}, (lacking, unknown)
    return Hosted(adapt(model.eval(), deltas), model, ours)


def built_vit(of: Published, deltas: Mapping[str, Any], ours: Callable[[Tensors], Tensors]) -> Hosted:
    """mmpretrain's ViT, from a config."""
    model = mmpretrain_vit(of, deltas, of.told['embed'], of.told['depth'], ['head'])
    lacking, unknown = model.load_state_dict(openmmlab(of.frozen), strict=False)
    assert not unknown and {*lacking} == {*model.plan.state_dict()}, (lacking, unknown)
    return Hosted(model.plan, lambda x: model(x, mode='tensor'), lambda part: openmmlab(ours(part)))


def mmpretrain_vit(of: Published, deltas: Mapping[str, Any], width: int, depth: int, train: list[str]) -> nn.Module:
    """Build the model of a config: images of 2 x 2 patches, five classes."""
    arch = dict(embed_dims=width, num_layers=depth, num_heads=of.told['heads'], feedforward_channels=4 * width)
    norm = dict(type='LN', eps=of.told['ln_eps'])
    sizes = dict(arch=arch, img_size=16, patch_size=8, norm_cfg=norm)
    model = dict(
        type='PETLImageClassifier',
        backbone=dict(type='VisionTransformer', **sizes),
        head=dict(type='PETLImageHead', num_classes=5, in_channels=width, bn=False),
        petl=dict(deltas=dict(deltas), train=train),
        base=None,
    )
    return build_model(dict(default_scope='mmpretrain', model=model), init_weights=True).eval()


def openmmlab(part: Tensors) -> Tensors:
    """timm's names of a ViT's tensors as those of mmpretrain's model."""
    return {openmmlab_name(name.replace('.mlp.', '.'), VIT_IMAGE): value for name, value in part.items()}


def one_block(width: int, deltas: Mapping[str, Any], **options: Any) -> Plan:
    """timm's ViT of one block whose weights are all zero, so that the block passes its input on."""
    sizes = dict(img_size=16, patch_size=8, embed_dim=width, depth=1, num_heads=1, num_classes=2)
    model = timm.models.VisionTransformer(**{**sizes, **options}).eval()
    for parameter in model.blocks.parameters():
        nn.init.zeros_(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of a delta that the class token alone does not reach
        return adapt(model, deltas, train=[])


def one_layer(
    of: Published, weight: Tensor, bias: Tensor, delta: Mapping[str, Any], names: Mapping[str, str]
) -> Hosted:
    """A linear layer, as the first of a block's MLP; in ``names`` it is ``fc1``."""
    d_out, d_in = weight.shape
    plan = one_block(d_in, dict(delta=dict(delta, at='fc1')), mlp_ratio=(d_out + 0.5) / d_in)
    layer = plan.model.blocks[0].mlp.fc1
    layer.load_state_dict(dict(weight=weight, bias=bias), strict=False)
    below = {theirs: own if own.startswith('deltas.') else f'blocks.0.mlp.{own}' for theirs, own in names.items()}
    return Hosted(plan, layer, named(below))


# Methods that change weights


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
    return one_layer(of, torch.eye(width), torch.zeros(width), _rep_adapter(of), names)


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
    return one_layer(of, **base, delta=dict(type='DoRA', rank=of.told['rank'], alpha=of.told['alpha']), names=names)


def vera(of: Published) -> Hosted:
    """VeRA of one linear layer, with the authors' random matrices."""
    base = {n: of.frozen[f'lin.base_layer.{n}'] for n in ('weight', 'bias')}
    names = {f'lin.vera_lambda_{n}.default': f'fc1.deltas.delta.{n}.out' for n in 'bd'}
    names |= {f'lin.vera_{n}.default': f'deltas.delta.{n}' for n in 'AB'}
    of.trained.update(of.part('b/'))
    return one_layer(of, **base, delta=dict(type='VeRA', rank=of.told['rank']), names=names)


def kadaptation(of: Published) -> Hosted:
    """KAdaptation of q: what it adds to a layer that is zero. Its authors share one bias between q and v."""
    told, width = of.told, of.told['dim']
    plan = one_block(
        width, dict(k=dict(type='KAdaptation', n=told['n'], scale=told['scale'])), num_heads=told['heads']
    )
    at, names = 'blocks.0.attn.qkv.deltas.k', {'attn.b': 'blocks.0.attn.qkv.deltas.k.c.q'}
    for i, slot in enumerate('qv', 1):
        names |= {f'phm_rule{i}_left': f'deltas.k.a.{slot}', f'phm_rule{i}_right': f'deltas.k.b.{slot}'}
        names |= {
            f'attn.{slot}_proj_adapter1_{side}': f'{at}.{n}.{slot}' for side, n in dict(left='u', right='v').items()
        }
    of.trained[f'{at}.c.v'] = of.trained['attn.b']
    return Hosted(plan, lambda x: plan.model.blocks[0].attn.qkv(x)[..., :width], named(names))


# Methods for video


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


# All of them


@dataclass(frozen=True)
class Case:
    """A method as published.

    Args:
        files: pattern of the files' names.
        host: what it is put on.
        make: puts it there.
        merges: whether it can become part of the weights.
    """

    files: str
    host: str
    make: Callable[[Published], Hosted]
    merges: bool = False


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
    Case('st_adapter_k*', "timm's block", partial(st_adapter, at='block')),
    Case('st_adapter_k*', "timm's block, in front of the MLP", partial(st_adapter, at='between')),
    Case('aim_block*', "timm's block", aim),
)
# of methods that are not here
OTHERS = ('adalora_*', 'bi_*', 'dtl_*', 'lorand_*')


def found() -> list[tuple[str, Case]]:
    """Every case with each of its files."""
    return [(name, case) for case in CASES for name in FILES if fnmatch(name, case.files)]


@dataclass(frozen=True)
class Errors:
    """The largest errors, relative to the largest entry of what is published; None for nothing merged."""

    output: float
    gradient: float
    input: float
    merged_output: float | None = None
    merged_weight: float | None = None


def error_of(value: Tensor | None, wanted: Tensor) -> float:
    """The largest error relative to the largest entry; where all are zero, the largest entry of ``value``."""
    value = torch.zeros_like(wanted) if value is None else value.detach().reshape(wanted.shape)
    return ((value - wanted).abs().max() / (wanted.abs().max() if wanted.any() else 1)).item()


def errors(name: str, case: Case) -> Errors:
    """Load what the authors trained, run forwards, backwards and merged, and compare."""
    of = Published(FILES[name])
    hosted = case.make(of)
    plan, ours = hosted.plan, hosted.ours(of.trained)
    empty = plan.state_dict()
    head = {k: v for k, v in empty.items() if '.deltas.' not in f'.{k}'}  # which a module alone has not
    plan.load_state_dict(head | {k: v.reshape(empty[k].shape) for k, v in ours.items()})
    x = of.input.clone().requires_grad_()
    y = hosted.run(x)
    y.square().sum().backward()
    wanted, own = hosted.ours(of.grads), dict(plan.named_parameters())
    assert wanted.keys() <= own.keys(), wanted.keys() - own.keys()
    # what has no gradient in the file has none here
    grads = [error_of(p.grad, wanted.get(n, torch.zeros_like(p)).reshape(p.shape)) for n, p in own.items()]
    told = error_of(y, of.output), max(grads), error_of(x.grad, of.gx)
    if not case.merges:
        return Errors(*told)
    plan.merge()
    with torch.no_grad():
        merged = error_of(hosted.run(of.input), of.output)
    now, weights = plan.model.state_dict(), hosted.ours(of.merged)
    return Errors(*told, merged, max((error_of(now[n], v) for n, v in weights.items()), default=None))


def main() -> None:
    """Print the errors of every case."""
    print('| method | case | host | output | worst gradient | input gradient | merged output | merged weights |')
    print('| --- | --- | --- | --- | --- | --- | --- | --- |')
    for name, case in sorted(found(), key=lambda pair: pair[0]):
        e = errors(name, case)
        told = [e.output, e.gradient, e.input, e.merged_output, e.merged_weight]
        columns = ['' if value is None else f'{value:.0e}' for value in told]
        print(f'| {" | ".join([Published(FILES[name]).told["method"], name, case.host, *columns])} |')


if __name__ == '__main__':
    main()
