"""The grammar of experiment names: ``{backbone}_{method}_{dataset}[_b|_r N][_sNN][_fN][_pretrain][_fc]``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from ..datasets.vtab1k import TOKENS
from ..errors import UserError

GRAMMAR = '{backbone}_{method}_{dataset}[_bN|_rN][_sNN][_fN][_pretrain][_fc], defaults left out'
POSITIONS = ('norm1', 'attnproj', 'attnqkv', 'attnrpb', 'norm2', 'mlpfc1', 'mlpfc2', 'downsample')
PATT_METHODS = tuple(m + v for m in ('patt', 'bapat') for v in ('', 'qk', 'qv', 'qkv', 'concat', 'tokens', 'zero'))
# SPT, and its controls, whose places sensitivity has not chosen
SPT_METHODS = tuple(m + v for m in ('sptlora', 'sptadapter') for v in ('', 'random', 'shuffled'))
# the letter of a method's size: b, a bottleneck's width, or r, a rank; None where it has none
SIZE_OF = {
    **dict.fromkeys(('full', 'fc', 'bitfit', 'vpt', *POSITIONS, *SPT_METHODS)),
    **dict.fromkeys(('adaptformer', 'prefix', *PATT_METHODS), 'b'),
    'lora': 'r',
}
VIDEO, IMAGE = ('ssv2', 'hmdb51'), ('cifar100', 'svhn', 'food101', 'cifar100n50')
# backbone -> its default pre-training (None: the name says it), and what it can start from
PRETRAINED = {
    'swin': ('k400', ('k400', 'k600', 'in22k')),
    'vit': (None, ('in21k', 'mae', 'mocov3', 'videomaek400', 'videomae')),
    'vits14': (None, ('dinov2', 'random')),
}
# these train the classification layer on HMDB51 as well, as the paper's counts say
FC_ON_HMDB51 = ('full', 'fc', 'adaptformer', 'vpt')
SCALE, FRAMES = 0.8, 8
_OPTIONS = dict(size=r'(b|r)([1-9]\d*)', scale=r's(\d\d)', frames=r'f([1-9]\d*)', fc=r'(fc)', pretrain=r'([a-z]\w*)')
_DEMO = re.compile(r'demo((?:_[a-z0-9]+)+)')


@dataclass(frozen=True)
class Name:
    """What an experiment's name says, defaults filled in.

    Args:
        backbone: ``'swin'``, ``'vit'``, ``'vits14'``, or ``'demo'``.
        method: such as ``'bapat'``, ``'bapatqk'``, ``'mlpfc1'``; of a demo config all the rest of its name.
        dataset: such as ``'ssv2'``; ``'demo'`` for the demo's.
        size_kind: ``'b'`` (bottleneck), ``'r'`` (rank) or None.
        size: the bottleneck's width or the rank; None where the name gives none.
        scale: PATT's s; None for a method without PATT, and for the demo's.
        frames: frames of a clip; None for images.
        pretrain: such as ``'k400'``; None for the demo's.
        fc: whether the classification layer trains; None for the demo's, whose names do not say.
    """

    backbone: str
    method: str
    dataset: str
    size_kind: str | None = None
    size: int | None = None
    scale: float | None = None
    frames: int | None = None
    pretrain: str | None = None
    fc: bool | None = None

    @property
    def is_demo(self) -> bool:
        """Whether it is one of the demo's, which stand outside the grammar's options."""
        return self.backbone == 'demo'

    @property
    def file(self) -> str:
        """The name as it is written, defaults left out."""
        fields = [self.backbone, self.method]
        if self.is_demo:
            return '_'.join(fields)
        fields.append(self.dataset)
        if self.size is not None:
            fields.append(f'{self.size_kind}{self.size}')
        if self.scale is not None and self.scale != SCALE:
            fields.append(f's{round(10 * self.scale):02d}')
        if self.frames not in (None, FRAMES):
            fields.append(f'f{self.frames}')
        if self.pretrain != PRETRAINED[self.backbone][0]:
            fields.append(str(self.pretrain))
        if self.fc and not trains_fc(self.method, self.dataset):
            fields.append('fc')
        return '_'.join(fields)


def trains_fc(method: str, dataset: str) -> bool:
    """Whether a name without ``_fc`` trains the classification layer, as in the paper."""
    return method not in POSITIONS and (dataset != 'hmdb51' or method in FC_ON_HMDB51)


def parse_name(name: str) -> Name:
    """What an experiment's name says.

    Args:
        name: a config file's name without ``.py``.

    Raises:
        UserError: naming the grammar and the nearest valid word or spelling.
    """
    if demo := _DEMO.fullmatch(name):
        return Name('demo', demo[1][1:], 'demo', frames=FRAMES)
    fields = name.split('_')
    if len(fields) < 3:
        raise _wrong(name, 'it has fewer than three fields')
    backbone, method, dataset = fields[:3]
    _check(name, 'backbone', backbone, (*PRETRAINED, 'demo'))
    _check(name, 'method', method, SIZE_OF)
    _check(name, 'dataset', dataset, (*VIDEO, *IMAGE, *TOKENS))
    parsed = _with_options(name, backbone, method, dataset, _options(name, fields[3:]))
    if parsed.file != name:
        raise _wrong(name, f'it is written {parsed.file}')
    return parsed


def _options(name: str, words: list[str]) -> dict[str, tuple[str, ...]]:
    """Each option that ``words`` give, in any order: the canonical spelling tells whether theirs is right."""
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        kind, match = next(((k, m) for k, p in _OPTIONS.items() if (m := re.fullmatch(p, word))), (None, None))
        if match is None or kind in found:
            raise _wrong(name, f'{word!r} is no option, or one too many')
        found[kind] = match.groups()
    return found


def _with_options(name: str, backbone: str, method: str, dataset: str, given: dict[str, tuple[str, ...]]) -> Name:
    default, choices = PRETRAINED[backbone]
    pretrain = given.get('pretrain', (default,))[0]
    _check(name, 'pre-training', pretrain or '(nothing)', choices)
    kind, size = given.get('size', (None, None))
    if kind != SIZE_OF[method]:
        wanted = f'_{SIZE_OF[method]}N' if SIZE_OF[method] else 'no size'
        raise _wrong(name, f'{method} takes {wanted}')
    has_scale, is_video = method in PATT_METHODS, dataset in VIDEO
    if 'scale' in given and not has_scale:
        raise _wrong(name, f'{method} has no scale s')
    if 'frames' in given and not is_video:
        raise _wrong(name, f'{dataset} has images, which have no frames')
    scale = int(given['scale'][0]) / 10 if 'scale' in given else SCALE
    frames = int(given['frames'][0]) if 'frames' in given else FRAMES
    return Name(
        backbone,
        method,
        dataset,
        kind,
        int(size) if size else None,
        scale if has_scale else None,
        frames if is_video else None,
        pretrain,
        'fc' in given or trains_fc(method, dataset),
    )


def _check(name: str, what: str, word: str, valid: Collection[str]) -> None:
    if word not in valid:
        near = difflib.get_close_matches(word, valid, n=1, cutoff=0.4)
        hint = f'the nearest is {near[0]!r}' if near else f'there is {", ".join(valid)}'
        raise _wrong(name, f'{word!r} is no {what}; {hint}')


def _wrong(name: str, why: str) -> UserError:
    return UserError(f'The name {name!r} is outside the grammar {GRAMMAR}: {why}.')
