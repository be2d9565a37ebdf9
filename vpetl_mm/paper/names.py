"""The grammar of experiment names: ``{backbone}_{method}_{dataset}[_b|_r N][_sNN][_fN][_pretrain][_fc]``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from ..datasets.vtab1k import TOKENS
from ..errors import UserError

GRAMMAR = '{backbone}_{method}_{dataset}[_bN|_rN|_Nk][_sNN][_fN][_pretrain][_fc], defaults left out'
POSITIONS = ('norm1', 'attnproj', 'attnqkv', 'attnrpb', 'norm2', 'mlpfc1', 'mlpfc2', 'downsample')
PATT_METHODS = tuple(
    m + v for m in ('patt', 'bapat') for v in ('', 'qk', 'qv', 'qkv', 'concat', 'tokens', 'zero', 'learned')
)
# SPT; its controls, which do not choose by sensitivity; and other measurements of it
SPT_VARIANTS = ('', 'random', 'shuffled', 'probe', 'sample', 'probesample')
SPT_METHODS = tuple(m + v for m in ('sptlora', 'sptadapter') for v in SPT_VARIANTS)
# methods of further papers; MH-PA's tokens are what its paper calls the bottleneck
FURTHER_METHODS = {
    **dict.fromkeys(('ssf', 'kadaptation')),
    **dict.fromkeys(('repadapter', 'adapterplus', 'convpass', 'mona', 'compacter', 'mam', 'mhpa'), 'b'),
    **dict.fromkeys(('dora', 'facttt', 'facttk', 'vera', 'dtl'), 'r'),
}
# method -> the letter of its size: b for a bottleneck's width, r for a rank, None without a size
SIZE_OF = {
    **dict.fromkeys(('full', 'fc', 'bitfit', 'vpt', *POSITIONS, *SPT_METHODS)),
    **dict.fromkeys(('adaptformer', 'prefix', *PATT_METHODS), 'b'),
    'lora': 'r',
    **FURTHER_METHODS,
}
VIDEO, IMAGE = ('ssv2', 'hmdb51'), ('cifar100', 'svhn', 'food101', 'cifar100n50')
IMAGE += tuple(f'cifar100shot{n}' for n in (5, 10, 50))
# backbone -> its default pre-training (None: the name states it), and all of them
PRETRAINED = {
    'swin': ('k400', ('k400', 'k600', 'in22k')),
    'vit': (None, ('in21k', 'mae', 'mocov3', 'videomaek400', 'videomae')),
    'vits14': (None, ('dinov2', 'random')),
    # models of timm and of Hugging Face
    'timmvits14': (None, ('dinov2',)),
    'timmvit': (None, ('dinov3',)),
    'hfvit': (None, ('videomaek400',)),
    'hfvitl': (None, ('vjepa2',)),
}
# these train the classification layer on HMDB51 too, as the paper's counts show
FC_ON_HMDB51 = ('full', 'fc', 'adaptformer', 'vpt')
SCALE, FRAMES = 0.8, 8
_OPTION = re.compile(
    r'(?P<kind>[br])(?P<size>[1-9]\d*)|(?P<budget>[1-9]\d*)k|s(?P<scale>\d\d)|f(?P<frames>[1-9]\d*)|(?P<fc>fc)'
    r'|(?P<pretrain>[a-z]\w*)'
)
_DEMO = re.compile(r'demo((?:_[a-z0-9]+)+)')


@dataclass(frozen=True)
class Name:
    """An experiment's name in its parts, defaults filled in.

    Args:
        backbone: a key of ``PRETRAINED``, such as ``'swin'`` or ``'timmvits14'``, or ``'demo'``.
        method: such as ``'bapat'``, ``'bapatqk'``, ``'mlpfc1'``; the rest of the name for a demo config.
        dataset: such as ``'ssv2'``; ``'demo'`` for a demo config.
        size_kind: ``'b'`` (bottleneck), ``'r'`` (rank) or None.
        size: the bottleneck's width or the rank; None if the name has none.
        scale: PATT's s; None for a method without PATT, and for a demo config.
        frames: frames per clip; None for images.
        pretrain: such as ``'k400'``; None for a demo config.
        fc: whether the classification layer trains; None for a demo config, whose name does not tell.
        budget: of SPT, in thousands of parameters; None for the config's own, and for other methods.
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
    budget: int | None = None

    @property
    def is_demo(self) -> bool:
        """Whether the config is one of the demo, whose names have no options."""
        return self.backbone == 'demo'

    @property
    def file(self) -> str:
        """The name in its one spelling, defaults left out."""
        if self.is_demo:
            return f'demo_{self.method}'
        fields = [self.backbone, self.method, self.dataset]
        if self.size is not None:
            fields.append(f'{self.size_kind}{self.size}')
        if self.budget is not None:
            fields.append(f'{self.budget}k')
        if self.scale not in (None, SCALE):
            fields.append(f's{round(10 * self.scale):02d}')
        if self.frames not in (None, FRAMES):
            fields.append(f'f{self.frames}')
        if self.pretrain != PRETRAINED[self.backbone][0]:
            fields.append(str(self.pretrain))
        if self.fc and not trains_fc(self.method, self.dataset):
            fields.append('fc')
        return '_'.join(fields)


def trains_fc(method: str, dataset: str) -> bool:
    """Return whether a name without ``_fc`` trains the classification layer, as in the paper."""
    return method not in POSITIONS and (dataset != 'hmdb51' or method in FC_ON_HMDB51)


def parse_name(name: str) -> Name:
    """Parse an experiment's name, that of its config without ``.py``.

    Raises:
        UserError: if it is outside the grammar, with the nearest valid word or the right spelling.
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
        raise _wrong(name, f'it is spelled {parsed.file}')
    return parsed


def _options(name: str, words: list[str]) -> dict[str, str]:
    """Return the options in any order: :func:`parse_name` compares the whole name with its one spelling."""
    found: dict[str, str] = {}
    for word in words:
        match = _OPTION.fullmatch(word)
        new = {k: v for k, v in match.groupdict().items() if v} if match else {}
        if not new or new.keys() & found:
            raise _wrong(name, f'{word!r} is not an option, or one too many')
        found |= new
    return found


def _with_options(name: str, backbone: str, method: str, dataset: str, given: dict[str, str]) -> Name:
    default, choices = PRETRAINED[backbone]
    pretrain = given.get('pretrain', default)
    _check(name, 'pre-training', pretrain or '(nothing)', choices)
    kind, has_scale, is_video = SIZE_OF[method], method in PATT_METHODS, dataset in VIDEO
    if given.get('kind') != kind:
        raise _wrong(name, f'{method} takes {f"_{kind}N" if kind else "no size"}')
    if 'budget' in given and method not in SPT_METHODS:
        raise _wrong(name, f'{method} has no budget')
    if 'scale' in given and not has_scale:
        raise _wrong(name, f'{method} has no scale s')
    if 'frames' in given and not is_video:
        raise _wrong(name, f'{dataset} has images, which have no frames')
    size = int(given['size']) if kind else None
    budget = int(given['budget']) if 'budget' in given else None
    scale = int(given.get('scale', 10 * SCALE)) / 10 if has_scale else None
    frames = int(given.get('frames', FRAMES)) if is_video else None
    fc = 'fc' in given or trains_fc(method, dataset)
    return Name(backbone, method, dataset, kind, size, scale, frames, pretrain, fc, budget)


def _check(name: str, what: str, word: str, valid: Collection[str]) -> None:
    if word not in valid:
        near = difflib.get_close_matches(word, valid, n=1, cutoff=0.4)
        hint = f'the nearest is {near[0]!r}' if near else f'valid: {", ".join(valid)}'
        raise _wrong(name, f'{word!r} is not a {what}; {hint}')


def _wrong(name: str, why: str) -> UserError:
    return UserError(f'The name {name!r} is outside the grammar {GRAMMAR}: {why}.')
