"""Every delta, alone and in combination, on every host, and the parameters that it adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tiny import HOSTS, Host, Shapes, linear

C = 16  # the width of the small models
Placed = dict[tuple[str, str], tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """``deltas`` as in a config, and what they add to one block: (place, name below its deltas) -> shape.

    What is at ``'once'`` is on the first block alone, and what is ``'shared'`` belongs to the backbone. A delta that
    is twice on one host is called ``<name>_<place>`` there.

    Attributes:
        silent: the deltas can start as the plain model.
        captured: a full graph is captured of it (others differ in numbers alone).
        constant: parameter -> its initial value, where that is not a linear layer's.
        held: what files hold beside the parameters, placed alike.
    """

    deltas: dict[str, dict[str, Any]]
    added: Placed
    silent: bool = True
    captured: bool = False
    constant: Mapping[str, float] = field(default_factory=dict)
    held: Placed = field(default_factory=dict)

    def zeroed(self) -> dict[str, dict[str, Any]]:
        """The same deltas, all starting at zero."""
        specs = self.deltas.items()
        start = {'PATT': 'zero', 'SSF': 'identity'}
        return {n: dict(s, init=start[s['type']]) if s['type'] in start else s for n, s in specs}

    def delta_of(self, name: str) -> str:
        """The delta that a parameter belongs to, '' for the host's own."""
        key = name.partition('.deltas.')[2].partition('.')[0]
        return key if key in self.deltas else key.rpartition('_')[0]

    def names(self, host: Host, depth: int = 2, held: bool = False) -> dict[str, tuple[int, ...]]:
        """Every added parameter of a model, and with ``held`` everything else that its files gain."""
        names = {}
        alone = dict(shared='backbone', patch_embed=host.patch, last_norm=host.final)
        places = {**host.below, **dict.fromkeys(('once', 'between', 'block'), '')}
        places |= dict(zip(('norm1', 'norm2'), host.norms, strict=True))
        for (place, name), shape in (self.added | (self.held if held else {})).items():
            if place in alone:
                names[f'{alone[place]}.deltas.{name}'] = shape
                continue
            below = places[place]
            for block in range(1 if place == 'once' else depth):
                path = f'{host.block.format(block)}.{below}'.removesuffix('.')
                names[f'{path}.deltas.{name}'] = shape
        return names


def patt(name: str = 'patt', r: int = 4, slots: str = 'kv', bias: Any = True, **options: Any) -> Case:
    added = linear('down', r, C, bias is not False) | linear('up', len(slots) * C, r, bias is True)
    if options.get('learn_scale'):
        added['scale'] = ()
    if options.get('source') == 'tokens':
        added['tokens'] = (options['num_tokens'], C)
    spec = dict(type='PATT', at='qkv', slots=slots, d_bottle=r, bias=bias, **options)
    return Case({name: spec}, _at('qkv', name, added), silent=options.get('mode') != 'concat')


def adapter(name: str = 'adapter', r: int = 4, **options: Any) -> Case:
    added = linear('down', r, C) | linear('up', C, r)
    if options.get('learn_scale'):
        added['scale'] = ()
    return Case({name: dict(type='AdaptMLP', at='mlp', d_bottle=r, **options)}, _at('mlp', name, added))


def of_linear(kind: str, at: str, name: str, slots: str, added: Callable[..., Shapes], **options: Any) -> Case:
    """A delta of a linear layer, of whose slots each has what ``added`` says: of slot, d_in and d_out."""
    widths = {'fc1': (C, 4 * C), 'fc2': (4 * C, C)}.get(at, (C, C))
    shapes = {n: s for slot in (slots if at == 'qkv' else ['out']) for n, s in added(slot, *widths).items()}
    spec = dict(type=kind, at=at, **options, **(dict(slots=slots) if at == 'qkv' else {}))
    return Case({name: spec}, _at(at, name, shapes))


def lora(at: str, name: str = 'lora', rank: int = 2, slots: str = 'qv', **options: Any) -> Case:
    def added(slot: str, d_in: int, d_out: int) -> Shapes:
        return linear(f'A.{slot}', rank, d_in, False) | linear(f'B.{slot}', d_out, rank, False)

    return of_linear('LoRA', at, name, slots, added, rank=rank, **options)


def linear_adapter(at: str, name: str = 'behind', r: int = 3, slots: str = 'qkv', **options: Any) -> Case:
    def added(slot: str, d_in: int, d_out: int) -> Shapes:
        seen = d_in if options.get('mode') == 'parallel' else d_out
        return linear(f'down.{slot}', r, seen) | linear(f'up.{slot}', d_out, r)

    return of_linear('LinearAdapter', at, name, slots, added, d_bottle=r, **options)


def prefix(name: str = 'prefix', n: int = 3, r: int = 4) -> Case:
    added = {'tokens': (n, C), **linear('down', r, C), **linear('up', 2 * C, r)}
    spec = dict(type='Prefix', at='attn', num_tokens=n, d_middle=r)
    return Case({name: spec}, _at('attn', name, added), silent=False)


def prompt(name: str = 'prompt', n: int = 3, deep: bool = True) -> Case:
    place = 'attn' if deep else 'once'
    spec = dict(type='Prompt', num_tokens=n, deep=deep)
    return Case({name: spec}, _at(place, name, {'tokens': (n, C)}), silent=False)


def st_adapter(at: str, r: int = 4, **options: Any) -> Case:
    added = linear('down', r, C) | linear('up', C, r) | {'conv.weight': (r, 1, 3, 1, 1), 'conv.bias': (r,)}
    name = f'st_{at}'
    return Case({name: dict(type='STAdapter', at=at, d_bottle=r, **options)}, _at(at, name, added))


def aim(r: int = 4, num_frames: int = 2) -> Case:
    """AIM's block with two adapters in time, and the embedding of frames."""
    tokens = dict(num_frames=num_frames)
    parts = [
        linear(f'{part}.{name}', *shape)
        for part in ('inward', 'outward')
        for name, shape in dict(down=(r, C), up=(C, r)).items()
    ]
    added = {n: s for part in parts for n, s in part.items()}
    time = Case(dict(time=dict(type='AIMTime', num_tadapter=2, d_bottle=r, **tokens)), _at('block', 'time', added))
    frames = Case(
        dict(frames=dict(type='FrameEmbedding', **tokens)), _at('once', 'frames', {'table': (num_frames, C)})
    )
    return both(frames, time, linear_adapter('proj', 'space', r), adapter('joint', r, act='GELU'))


def everywhere(kind: str, name: str, added: Mapping[str, Shapes], **options: Any) -> Case:
    """A delta at all its places: place -> what it adds there."""
    twice = 'block' in added and 'between' in added
    placed = {p: f'{name}_{p}' if twice and p in ('block', 'between') else name for p in added}
    parts = [_at(place, placed[place], shapes) for place, shapes in added.items()]
    return Case({name: dict(type=kind, **options)}, {k: s for part in parts for k, s in part.items()})


def start_plain() -> Case:
    """Updates of weights, and what else starts as the plain model."""
    widths = dict(patch_embed=C, norm1=C, qkv=3 * C, proj=C, norm2=C, fc1=4 * C, fc2=C, last_norm=C)
    rep = {**linear('down', 4, C), 'up': (2, C // 2, 2), 'bias': (C,)}
    dora = {n: s for t in 'qv' for n, s in {f'A.{t}.weight': (2, C), f'B.{t}.weight': (C, 2), f'm.{t}': (C,)}.items()}
    factors = {'U.weight': (2, C), 'V.weight': (C, 2)}
    slices = {p: {'S': (n, 2, 2)} for p, n in dict(qkv=3, proj=1, fc1=4, fc2=4).items()}
    kron = {'c': (C,), **{f'{n}.{t}': (2, C // 2) for n in 'uv' for t in 'qv'}}
    slow = {f'{n}.{t}': (2, 2) for n in 'ab' for t in 'qv'}
    bypass = linear('down', 4, C) | linear('up', C, 4) | {'conv.weight': (4, 4, 3, 3), 'conv.bias': (4,)}
    vectors = {'d.out': (4,), 'b.out': (C,)}
    vera = everywhere('VeRA', 'vera', dict(proj=vectors), at='proj', rank=4, save_projection=False)
    return both(
        everywhere('SSF', 'ssf', {p: dict(gamma=(d,), beta=(d,)) for p, d in widths.items()}),
        everywhere('RepAdapter', 'rep', dict(qkv=rep, fc1=rep), d_bottle=4),
        everywhere('DoRA', 'dora', dict(qkv=dora), rank=2),
        everywhere('FacT', 'tt', {'shared': factors, **slices}, rank=2),
        everywhere(
            'FacT', 'tk', dict(shared=factors | {'C': (2, 2, 2), 'P': (2, 24)}), rank=2, form='TK', published=True
        ),
        replace(vera, held=_at('shared', 'vera', {'checksum': ()})),
        everywhere('KAdaptation', 'kada', dict(shared=slow, qkv=kron), n=2),
        everywhere('Convpass', 'bypass', dict(between=bypass, mlp=bypass), d_bottle=4),
    )


def start_elsewhere() -> Case:
    """Bottlenecks that do not start as the plain model."""
    mona = {'norm.weight': (C,), 'norm.bias': (C,), 's1': (C,), 's2': (C,)}
    mona |= linear('down', 4, C) | linear('up', C, 4)
    for name, *weight in (('depthwise.0', 1, 3, 3), ('depthwise.1', 1, 5, 5), ('pointwise', 4, 1, 1)):
        mona |= {f'{name}.weight': (4, *weight), f'{name}.bias': (4,)}
    phm = {
        'down.s': (2, 8, 1),
        'down.t': (2, 1, 2),
        'down.b': (4,),
        'up.s': (2, 2, 1),
        'up.t': (2, 1, 8),
        'up.b': (C,),
    }
    plus = linear('down', 4, C) | linear('up', C, 4) | {'scale': (C,)}
    heads = {'norm.weight': (C,), 'norm.bias': (C,), 'K': (3, C), 'V': (3, C)}
    case = both(
        everywhere('MHPA', 'mhpa', dict(attn=heads), num_tokens=3),
        everywhere('Compacter', 'compacter', dict(shared={'A': (2, 2, 2)}, proj=phm, mlp=phm), n=2, d_bottle=4),
        everywhere('Mona', 'mona', dict(between=mona, block=mona), d_bottle=4, kernels=[3, 5]),
        everywhere('AdapterPlus', 'plus', dict(block=plus), d_bottle=4),
    )
    return replace(case, silent=False)


def _at(place: str, name: str, shapes: Shapes) -> Placed:
    return {(place, f'{name}.{parameter}'): shape for parameter, shape in shapes.items()}


def both(*cases: Case) -> Case:
    deltas: dict[str, dict[str, Any]] = {}
    added: Placed = {}
    held: Placed = {}
    for case in cases:
        assert not deltas.keys() & case.deltas.keys()
        deltas |= case.deltas
        added |= case.added
        held |= case.held
    return Case(deltas, added, all(c.silent for c in cases), held=held)


def cases(host: Host) -> dict[str, Case]:
    """Everything that makes sense on ``host``."""
    concat, table = patt(mode='concat'), patt(source='tokens', num_tokens=host.tokens)
    residual = adapter(source='residual')
    captured = {
        'patt_qkv_learn_scale': patt(slots='qkv', learn_scale=True),
        'patt_concat': concat,
        'patt_tokens': table,
        'lora_everywhere': both(*(lora(at, f'lora_{at}') for at in ('qkv', 'proj', 'fc1', 'fc2'))),
        'linear_adapter_everywhere': both(
            *(linear_adapter(at, f'behind_{at}') for at in ('qkv', 'fc1', 'fc2')),
            linear_adapter('proj', mode='parallel'),
        ),
        'three_adapters': both(
            adapter('beside'), adapter('behind', mode='sequential'), adapter('out', source='residual')
        ),
        'prefix_patt_prompt': both(prefix(), patt(), prompt()),
    }
    if not host.windows:
        captured['shallow_residual'] = both(prompt(deep=False), residual)
    if host.scope == 'mmpretrain' and not host.windows:  # frames in the batch
        captured['aim'] = aim()
        captured['st_adapter'] = both(st_adapter('block', num_frames=2), adapter())
    elif not host.windows:  # all in one row
        captured['st_adapter'] = both(st_adapter('block', act='GELU'), st_adapter('between', kernel=(3, 1, 1)))
    others = {
        **{f'patt_{slots}': patt(slots=slots) for slots in ('kv', 'qv', 'qk')},
        **{f'patt_{act.lower()}': patt(act=act) for act in ('ReLU', 'GELU')},
        'patt_no_bias': patt(bias=False),
        'patt_bias_down': patt(bias='down'),
        'concat_tokens': patt(mode='concat', source='tokens', num_tokens=host.tokens, act='GELU', learn_scale=True),
        'adapter': adapter(),
        'adapter_learn_scale': adapter(learn_scale=True),
        'adapter_sequential': adapter(mode='sequential'),
        'adapter_residual': residual,
        'adapter_dropout': adapter(dropout=0.5),
        'lora_qkv_k': lora('qkv', slots='k'),
        'lora_fc2': lora('fc2', alpha=4),
        'lora_dropout': lora('qkv', slots='qkv', dropout=0.5),
        'linear_adapter_dropout': linear_adapter('qkv', slots='kv', mode='parallel', act='ReLU', dropout=0.5),
        'lora_and_linear_adapter': both(lora('qkv'), linear_adapter('qkv')),
        'prefix': prefix(),
        'prompt': prompt(),
        'bapat': both(patt(), adapter()),
        'patt_and_lora': both(patt(), lora('qkv', slots='qkv')),
        'two_patts': both(patt('one', slots='kv'), patt('two', slots='qk', r=3)),
        'start_plain': start_plain(),
        'start_elsewhere': start_elsewhere(),
        'two_prefixes_and_concat': both(prefix('one'), prefix('two', n=1), concat),
    }
    if not host.windows:
        others['shallow'] = prompt(deep=False)
        others['shallow_and_deep'] = both(prompt('one', deep=False), prompt('two'), prefix())
    return {**{n: replace(c, captured=True) for n, c in captured.items()}, **others}


# layer scale changes what lies in a branch and what does not, and nothing else
SCALED = (
    'start_elsewhere',
    'three_adapters',
    'prefix_patt_prompt',
    'shallow_residual',
    'adapter_residual',
    'lora_everywhere',
    'bapat',
)
# what the other hosts do for many methods at once; few graphs of them, which take long
LEFT_OUT = ('swin3d-start_plain', 'vit-start_plain', 'vit-start_elsewhere')
CAPTURED = ('videomae-start_plain', 'swin2d-start_elsewhere')
MATRIX = {
    f'{name}-{case}': (host, replace(c, captured=c.captured or f'{name}-{case}' in CAPTURED))
    for name, host in HOSTS.items()
    for case, c in cases(host).items()
    if (name != 'vit_layerscale' or case in SCALED) and f'{name}-{case}' not in LEFT_OUT
}


def every(wanted=lambda case: True):
    chosen = {i: pair for i, pair in MATRIX.items() if wanted(pair[1])}
    return pytest.mark.parametrize(('host', 'case'), chosen.values(), ids=chosen.keys())
