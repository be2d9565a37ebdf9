"""The header of a bundle. Every field is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from ...engine.checkpoint import is_plain
from ...errors import UserError, is_line, reason
from ...files import from_json
from ...weights.kinds import KINDS
from .allowed import MOST_CLASSES, brief, checked_model, checked_pipeline

FORMAT = 1
LONGEST = 1 << 22  # of a header, in bytes
DEEPEST = 50
SHA256 = re.compile(r'[0-9a-f]{64}')
MODELS = {'mmaction': 'PETLRecognizer3D', 'mmpretrain': 'PETLImageClassifier'}


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
    def media(self) -> str:
        """What it classifies, ``'video'`` or ``'image'``."""
        return 'video' if self.is_video else 'image'

    @property
    def head_name(self) -> str:
        """The name of the model's head."""
        return 'cls_head' if self.is_video else 'head'

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return self.model[self.head_name]['num_classes']


def written(about: About) -> str:
    """Return a header as text."""
    return json.dumps(asdict(about))


def about_of(text: str, where: str) -> About:
    """Return the header that a text holds.

    Args:
        text: JSON.
        where: begins the sentence of an error, such as ``'b.safetensors cannot be used'``.

    Raises:
        UserError: for what no bundle may say.
    """
    try:
        content = _parsed(text)
        _check_names(content)
        for name, (right, what) in CHECKS.items():
            if not right(content[name]):
                raise UserError(f'its {name} is {brief(content[name])}, not {what}.')
        model, pipeline = checked_model(content['model']), checked_pipeline(content['pipeline'])
        about = About(**dict(content, model=model, pipeline=pipeline))
        _check_fit(about)
    except UserError as error:
        raise UserError(f'{where}: {error}') from error
    return about


def _parsed(text: str) -> Any:
    """Return the content of JSON text, whose numbers must be finite and whose names must be unique."""
    if len(text) > LONGEST:
        raise UserError(f'its header is longer than {LONGEST:,} characters.')
    try:
        content = from_json(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    except ValueError as error:
        raise UserError(f'its header is not JSON ({reason(error)}).') from error
    level, depth = [content], 0
    while level:
        level = [part for value in level for part in _parts(value)]
        depth += 1
        if depth > DEEPEST:
            raise UserError('its header is nested too deeply.')
    return content


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f'{text[:20]} is not finite')
    return float(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError('a name appears twice')
    return dict(pairs)


def _check_names(content: Any) -> None:
    """Check the format, and that nothing is missing or unknown."""
    version = content.get('format') if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise UserError('its header does not name its format.')
    if version > FORMAT:
        raise UserError(f'its format is {version}, and this version reads format {FORMAT}: update vpetl_mm.')
    names = {f.name for f in fields(About)}
    if odd := sorted({*content} ^ names):
        raise UserError(f'{brief(odd[0])} is {"missing" if odd[0] in names else "unknown"} in its header.')


def _check_fit(about: About) -> None:
    """Check that the model, its library and the class names belong together."""
    model, kind = about.model, MODELS[about.default_scope]
    parts = [model.get(name) for name in ('backbone', about.head_name, 'petl')]
    if model['type'] != kind or not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f'its model is not a {kind} with backbone, {about.head_name} and petl.')
    number, petl = parts[1].get('num_classes'), parts[2]
    if not isinstance(number, int) or 'train' not in petl or not isinstance(petl.get('deltas', {}), Mapping):
        raise UserError(f'its model lacks {about.head_name}.num_classes, petl.train or petl.deltas.')
    if about.classes is not None and len(about.classes) != number:
        raise UserError(f'it names {len(about.classes)} classes, and its head has {number}.')
    if (petl.get('spt') is None) != (about.spt is None):
        raise UserError('only one of its model and its header mentions SPT.')
    if about.base is None and about.frozen_sha256 is not None:
        raise UserError('it needs a base and does not name one.')


def _is_name(value: Any) -> bool:
    return _is_text(value) and value not in ('', '.', '..') and not {'/', '\\'} & {*value}


def _is_text(value: Any) -> bool:
    return is_line(value) and len(value) < 1000


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(SHA256.fullmatch(value))


def _is_percent(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100


def _is_time(value: Any) -> bool:
    try:
        return _is_text(value) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_convert(value: Any) -> bool:
    return isinstance(value, str) and value in KINDS


def _are_classes(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST_CLASSES and all(map(_is_text, value))


def _are_deltas(value: Any) -> bool:
    return isinstance(value, dict) and is_plain(value) and all(isinstance(d, dict) for d in value.values())


def _none_or(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or right(value)


def _has(**parts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check of a dict with exactly these parts."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == parts.keys() and all(parts[k](v) for k, v in value.items())
    )


SCORES = dict.fromkeys(('top1', 'top5', 'mean_class'), _is_percent) | dict.fromkeys(('list', 'checkpoint'), _is_text)
# every part but the configs -> whether a value is right, and what that is
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'name': (_is_name, "an experiment's name"),
    'default_scope': (lambda value: isinstance(value, str) and value in MODELS, f'one of {", ".join(MODELS)}'),
    'classes': (_none_or(_are_classes), f'up to {MOST_CLASSES:,} names of one line'),
    'base': (
        _none_or(_has(name=_is_name, url=_none_or(_is_text), sha256=_is_sha256, convert=_none_or(_is_convert))),
        'the name, url, sha256 and convert of a file',
    ),
    'frozen_sha256': (_none_or(_is_sha256), 'a SHA-256'),
    'deltas': (_are_deltas, 'settings by name'),
    **dict.fromkeys(('trainable', 'total', 'epoch'), (_is_count, 'a whole number from 0 up')),
    'seed': (_none_or(lambda value: _is_count(value) and value < 2**32), 'a seed of 32 bits'),
    'scores': (_none_or(_has(samples=_is_count, **SCORES)), f'the samples, {", ".join(SCORES)} of a test'),
    'options': (lambda value: isinstance(value, dict) and is_plain(value), 'plain values by name'),
    'versions': (
        lambda value: isinstance(value, dict) and all(map(_is_text, [*value, *value.values()])),
        'texts by name',
    ),
    'license': (_is_text, 'text of one line'),
    'created': (_is_time, 'a time in ISO format'),
    'spt': (_none_or(lambda value: isinstance(value, dict)), "SPT's choice"),
}
