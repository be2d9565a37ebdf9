"""The header of a bundle. Every field is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...errors import UserError
from ...files import is_plain
from ...weights.kinds import KINDS
from .allowed import checked_model, checked_pipeline
from .header import (
    MOST_CLASSES,
    are_classes,
    are_deltas,
    brief,
    check_names,
    has,
    is_count,
    is_name,
    is_percent,
    is_sha256,
    is_text,
    is_time,
    none_or,
    parsed,
)

FORMAT = 1
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
        content = parsed(text)
        check_names(content, FORMAT, {f.name for f in fields(About)})
        for name, (right, what) in CHECKS.items():
            if not right(content[name]):
                raise UserError(f'its {name} is {brief(content[name])}, not {what}.')
        model, pipeline = checked_model(content['model']), checked_pipeline(content['pipeline'])
        about = About(**dict(content, model=model, pipeline=pipeline))
        _check_fit(about)
    except UserError as error:
        raise UserError(f'{where}: {error}') from error
    return about


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


def _is_convert(value: Any) -> bool:
    return isinstance(value, str) and value in KINDS


SCORES = dict.fromkeys(('top1', 'top5', 'mean_class'), is_percent) | dict.fromkeys(('list', 'checkpoint'), is_text)
# every part but the configs -> whether a value is right, and what that is
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'name': (is_name, "an experiment's name"),
    'default_scope': (lambda value: isinstance(value, str) and value in MODELS, f'one of {", ".join(MODELS)}'),
    'classes': (none_or(are_classes), f'up to {MOST_CLASSES:,} names of one line'),
    'base': (
        none_or(has(name=is_name, url=none_or(is_text), sha256=is_sha256, convert=none_or(_is_convert))),
        'the name, url, sha256 and convert of a file',
    ),
    'frozen_sha256': (none_or(is_sha256), 'a SHA-256'),
    'deltas': (are_deltas, 'settings by name'),
    **dict.fromkeys(('trainable', 'total', 'epoch'), (is_count, 'a whole number from 0 up')),
    'seed': (none_or(lambda value: is_count(value) and value < 2**32), 'a seed of 32 bits'),
    'scores': (none_or(has(samples=is_count, **SCORES)), f'the samples, {", ".join(SCORES)} of a test'),
    'options': (lambda value: isinstance(value, dict) and is_plain(value), 'plain values by name'),
    'versions': (
        lambda value: isinstance(value, dict) and all(map(is_text, [*value, *value.values()])),
        'texts by name',
    ),
    'license': (is_text, 'text of one line'),
    'created': (is_time, 'a time in ISO format'),
    'spt': (none_or(lambda value: isinstance(value, dict)), "SPT's choice"),
}
