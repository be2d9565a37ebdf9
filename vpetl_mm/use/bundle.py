"""Bundles: what was trained, and all that it takes to use it, in one .safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..engine.checkpoint import is_plain
from ..errors import UserError, is_line
from ..files import from_json
from ..spt.allocation import Allocation, allocation_of, described
from ..weights.contents import format_of, must_be_file
from ..weights.files import write_safetensors
from ..weights.kinds import KINDS
from .allowed import checked_model, checked_pipeline

FORMAT = 1
KEY = 'vpetl_mm_bundle'
ENTRIES = 'spt/'  # in front of the names of SPT's single entries, which are no tensors of the model
SHA256 = re.compile(r'[0-9a-f]{64}')
MOST_CLASSES = 1_000_000
NONE = type(None)
BASE = {'name': str, 'url': (str, NONE), 'sha256': str, 'convert': (str, NONE)}
SCORES = {'top1': (int, float), 'top5': (int, float), 'mean_class': (int, float), 'samples': int, 'list': str}
SCORES |= {'checkpoint': str}


@dataclass(frozen=True)
class About:
    """The header of a bundle.

    Args:
        name: of the experiment.
        default_scope: ``'mmaction'`` for videos, ``'mmpretrain'`` for images.
        model: the model's config, without its base.
        pipeline: the test pipeline.
        classes: their names; None where the data set has none.
        base: ``name``, ``url``, ``sha256`` (of the file) and ``convert`` of the pre-trained weights; None for a
            random backbone.
        frozen_sha256: of the frozen tensors of the backbone, which the bundle leaves to the base; None where it holds
            the whole model.
        deltas: the settings of every delta, by name.
        trainable: number of trained parameters.
        total: number of parameters.
        epoch: after which it was written.
        seed: of the run.
        scores: ``top1``, ``top5`` and ``mean_class`` in percent, the number of ``samples``, the ``list`` and the
            ``checkpoint``; None if it was not tested.
        options: the run's ``--cfg-options``.
        versions: of the libraries, by name.
        license: ``'unknown'`` unless given.
        created: the time, in ISO format.
        spt: what SPT chose; None without SPT.
        format: of the file.
    """

    name: str
    default_scope: str
    model: dict[str, Any]
    pipeline: list[dict[str, Any]]
    classes: list[str] | None
    base: dict[str, Any] | None
    frozen_sha256: str | None
    deltas: dict[str, dict[str, Any]]
    trainable: int
    total: int
    epoch: int
    seed: int | None = None
    scores: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    license: str = 'unknown'
    created: str = ''
    spt: dict[str, Any] | None = None
    format: int = FORMAT

    @property
    def is_video(self) -> bool:
        """Whether it classifies videos; it classifies images otherwise."""
        return self.default_scope == 'mmaction'

    @property
    def head_name(self) -> str:
        """The name of the model's head."""
        return 'cls_head' if self.is_video else 'head'

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.model[self.head_name]['num_classes']


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Args:
        file: its path.
        about: its header.
        tensors: what was trained, the head and changed buffers, by their keys in the model.
        allocation: what SPT chose; None without SPT.
    """

    file: Path
    about: About
    tensors: dict[str, Tensor] = field(repr=False)
    allocation: Allocation | None = field(default=None, repr=False)


def write_bundle(
    file: Path, about: About, tensors: Mapping[str, Tensor], entries: Mapping[str, Tensor] | None = None
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        file: its path; a file there is replaced.
        about: its header.
        tensors: by their keys in the model.
        entries: SPT's single entries, by unit.

    Raises:
        UserError: when it cannot be written.
    """
    extra = {f'{ENTRIES}{name}': value for name, value in (entries or {}).items()}
    write_safetensors(file, {**tensors, **extra}, {'format': 'pt', KEY: json.dumps(asdict(about))})


def as_read(file: Path, about: About) -> About:
    """Return a header as it will be read from ``file``; raise :class:`UserError` if it would be refused there."""
    return _about(file, json.dumps(asdict(about)))


def read_about(file: str | Path) -> About:
    """Read the header of a bundle.

    Raises:
        UserError: when it is missing, no bundle, of a newer format, or says what no bundle may say.
    """
    return _read(Path(file), values=False)[0]


def read_bundle(file: str | Path) -> Bundle:
    """Read a bundle; nothing in it is run, opened or built.

    Raises:
        UserError: as :func:`read_about`, and for tensors that are not finite numbers.
    """
    path = Path(file)
    about, content = _read(path, values=True)
    for name, value in content.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f'{path} cannot be used: {name} holds numbers that are not finite.')
    entries = {k.removeprefix(ENTRIES): content.pop(k) for k in list(content) if k.startswith(ENTRIES)}
    allocation = None
    if about.spt is not None:
        try:
            allocation = allocation_of(about.spt, entries)
        except ValueError as error:
            raise UserError(f'{path} is broken: what SPT chose is not readable ({error}).') from error
    elif entries:
        raise UserError(f'{path} is broken: it has single entries of weights, but no choice of SPT.')
    return Bundle(path, about, content, allocation)


def is_bundle(file: str | Path) -> bool:
    """Return whether a file is a bundle, of any format."""
    path = Path(file)
    try:
        return path.is_file() and format_of(path) == 'safetensors' and KEY in _metadata(path)
    except (UserError, SafetensorError, OSError):
        return False


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, 'pt') as opened:
        return opened.metadata() or {}


def _read(path: Path, values: bool) -> tuple[About, dict[str, Tensor]]:
    must_be_file(path, 'The bundle ')
    try:
        if format_of(path) != 'safetensors':
            raise UserError('it is no .safetensors file; tools/adapter.py pack makes a bundle of a checkpoint.')
        with safe_open(path, 'pt') as opened:
            text = (opened.metadata() or {}).get(KEY)
            if text is None:
                raise UserError('it has no header of a bundle; tools/adapter.py pack makes a bundle of a run.')
            about = _about(path, text)
            return about, {k: opened.get_tensor(k) for k in opened.keys()} if values else {}  # noqa: SIM118
    except UserError as error:
        known = str(error).startswith(str(path))
        raise error if known else UserError(f'{path} is not a bundle: {error}') from error
    except (SafetensorError, OSError) as error:
        raise UserError(f'The bundle {path} is broken or cut short ({error}).') from error


def _about(path: Path, text: str) -> About:
    """Return the header of its JSON; raise :class:`UserError` for what no bundle may say."""
    try:
        content = from_json(text)
    except ValueError as error:
        raise UserError(f'{path} is broken: its header is no JSON ({error}).') from error
    version = content.get('format') if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT:
        raise UserError(
            f'{path} is a bundle of format {version}; this version reads format {FORMAT}: update vpetl_mm.'
        )
    names = {f.name for f in fields(About)}
    if version != FORMAT or {*content} != names:
        odd = sorted({*content} ^ names)[0] if isinstance(content, dict) and version == FORMAT else 'format'
        raise UserError(f'{path} is broken: {odd!r:.80} in its header is missing or unknown.')
    _check_plain(path, content)
    model, pipeline = content['model'], content['pipeline']
    content |= dict(model=checked_model(model, str(path)), pipeline=checked_pipeline(pipeline, str(path)))
    about = About(**content)
    _check_fit(path, about)
    return about


def _check_plain(path: Path, content: Mapping[str, Any]) -> None:
    """Check every part but the configs by its type."""
    base, scores, classes, deltas = (content[name] for name in ('base', 'scores', 'classes', 'deltas'))
    deltas_fit = isinstance(deltas, dict) and is_plain(deltas) and all(isinstance(d, dict) for d in deltas.values())
    counts = [content[name] for name in ('trainable', 'total', 'epoch')]
    seed, frozen = content['seed'], content['frozen_sha256']
    lines = [content[name] for name in ('name', 'license', 'created')]
    for name, right in (
        (
            'name, license or created',
            all(is_line(v) and len(v) < 1000 for v in lines) and _is_time(content['created']),
        ),
        ('name', content['name'] not in ('', '.', '..') and not {'/', '\\'} & {*content['name']}),
        ('default_scope', content['default_scope'] in ('mmaction', 'mmpretrain')),
        ('classes', classes is None or (isinstance(classes, list) and 0 < len(classes) <= MOST_CLASSES)),
        ('classes', all(is_line(c) and len(c) < 1000 for c in classes or ())),
        ('base', base is None or (_has(base, BASE) and _is_base(base))),
        ('frozen_sha256', frozen is None or (_is_sha256(frozen) and base is not None)),
        ('deltas', deltas_fit),
        ('trainable, total or epoch', all(type(n) is int and n >= 0 for n in counts) and counts[0] <= counts[1]),
        ('seed', seed is None or (type(seed) is int and 0 <= seed < 2**32)),
        ('scores', scores is None or (_has(scores, SCORES) and _are_scores(scores))),
        ('options', isinstance(content['options'], dict) and is_plain(content['options'])),
        ('versions', isinstance(content['versions'], dict) and all(map(is_line, content['versions'].values()))),
        ('versions', isinstance(content['versions'], dict) and all(map(is_line, content['versions']))),
        ('spt', content['spt'] is None or isinstance(content['spt'], dict)),
    ):
        if not right:
            raise UserError(f'{path} is broken: {name} in its header cannot be {str(content.get(name))!r:.80}.')


def _has(part: Any, types: Mapping[str, Any]) -> bool:
    """Tell whether a part has exactly these entries, each of its type and, if text, on one line."""
    if not isinstance(part, dict) or part.keys() != types.keys():
        return False
    values = [(part[name], kind) for name, kind in types.items()]
    right = (
        isinstance(v, kind) and type(v) is not bool and (not isinstance(v, str) or is_line(v)) for v, kind in values
    )
    return all(right)


def _is_base(base: Mapping[str, Any]) -> bool:
    plain = Path(base['name']).name == base['name'] != ''
    return plain and _is_sha256(base['sha256']) and base['convert'] in (None, *KINDS)


def _are_scores(scores: Mapping[str, Any]) -> bool:
    return all(0 <= scores[name] <= 100 for name in ('top1', 'top5', 'mean_class')) and scores['samples'] > 0


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(SHA256.fullmatch(value))


def _is_time(text: str) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _check_fit(path: Path, about: About) -> None:
    """Check that the model, its library and the class names belong together."""
    kind = 'PETLRecognizer3D' if about.is_video else 'PETLImageClassifier'
    parts = [about.model.get(name) for name in ('backbone', about.head_name, 'petl')]
    if about.model['type'] != kind or not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f'{path} is broken: its model is not a {kind} with backbone, {about.head_name} and petl.')
    classes = parts[1].get('num_classes')
    if type(classes) is not int or not 0 < classes <= MOST_CLASSES:
        raise UserError(f'{path} is broken: its head has {classes!r:.80} classes.')
    if about.classes is not None and len(about.classes) != classes:
        raise UserError(f'{path} is broken: it names {len(about.classes)} classes, and its head has {classes}.')
    if (parts[2].get('spt') is None) != (about.spt is None):
        raise UserError(f'{path} is broken: SPT is in its model or in its header alone.')


def described_choice(allocation: Allocation | None) -> dict[str, Any] | None:
    """Return what SPT chose as the header holds it."""
    return None if allocation is None else described(allocation)


def element_count(tensors: Mapping[str, Tensor]) -> int:
    """Return how many numbers tensors hold."""
    return sum(value.numel() for value in tensors.values())
