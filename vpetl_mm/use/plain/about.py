"""The header of the bundle of a plan. Every field is checked before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...errors import UserError
from ..bundle.header import (
    MOST_CLASSES,
    are_classes,
    are_deltas,
    brief,
    check_names,
    is_count,
    is_name,
    is_sha256,
    is_text,
    is_time,
    none_or,
    parsed,
)

FORMAT = 1
MOST, MOST_PARTS, MOST_RANK = 1_000_000, 64, 65_536
WORDS = re.compile(r'[A-Za-z0-9_ +-]{0,64}')
PATH = re.compile(r'\w+(\.\w+)*')


@dataclass(frozen=True)
class PlanAbout:
    """The header of the bundle of a plan.

    Args:
        name: of the file, unless given.
        host: the key of the backbone's class in the place table.
        model: the model's class, and what its library calls it.
        backbone: its path in the model; '' for the model itself.
        head: the paths of the heads.
        deltas: the settings of every delta, by name.
        train: the names of what else was trained.
        frozen_sha256: of everything that the bundle leaves to the model.
        trainable: number of trained parameters.
        total: number of parameters.
        classes: their names; None where they were not given.
        spt: what SPT chose, and its dropout; None without SPT.
        license: ``'unknown'`` unless given.
        versions: of the libraries, by name.
        created: the time, in ISO format.
        format: of the file.
    """

    name: str
    host: str
    model: str
    backbone: str
    head: list[str]
    deltas: dict[str, dict[str, Any]]
    train: list[str]
    frozen_sha256: str
    trainable: int
    total: int
    classes: list[str] | None = None
    spt: dict[str, Any] | None = None
    license: str = 'unknown'
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ''
    format: int = FORMAT


def written_plan(about: PlanAbout) -> str:
    """Return a header as text."""
    return json.dumps(asdict(about))


def plan_about(text: str, where: str) -> PlanAbout:
    """Return the header that a text holds.

    Args:
        text: JSON.
        where: begins the sentence of an error, such as ``'b.safetensors cannot be used'``.

    Raises:
        UserError: for what no bundle may say.
    """
    try:
        content = parsed(text)
        check_names(content, FORMAT, {f.name for f in fields(PlanAbout)})
        for name, (right, what) in CHECKS.items():
            if not right(content[name]):
                raise UserError(f'its {name} is {brief(content[name])}, not {what}.')
        for name, delta in content['deltas'].items():
            _check_delta(name, delta)
        return PlanAbout(**content)
    except UserError as error:
        raise UserError(f'{where}: {error}') from error


def _check_delta(name: str, settings: Mapping[str, Any]) -> None:
    """Check that the settings of a delta are names with plain values, whose sizes nothing can run away with.

    Which type and options there are is checked when a delta is built, on the meta device first.
    """
    at = settings.get('at')
    places = at if isinstance(at, list) and at else [at]
    for key, words in dict(type=[settings.get('type')], at=places).items():
        if not all(isinstance(word, str) for word in words):
            raise UserError(f'its delta {brief(name)} has no {key}.')
    rank = settings.get('rank')
    if isinstance(rank, int) and rank > MOST_RANK:  # VeRA draws a matrix of so many rows, which no file holds
        raise UserError(f'its delta {brief(name)} has a rank of {rank:,}, above {MOST_RANK:,}.')
    for option, value in settings.items():
        if not isinstance(option, str) or not option.isidentifier() or not _is_option(value):
            raise UserError(f'its delta {brief(name)} has {brief(option)}={brief(value)}.')


def _is_option(value: Any) -> bool:
    if isinstance(value, str):
        return bool(WORDS.fullmatch(value))
    if isinstance(value, list):
        return len(value) <= MOST_PARTS and all(map(_is_part, value))
    return value is None or (isinstance(value, (int, float)) and abs(value) <= MOST)


def _is_part(value: Any) -> bool:
    return bool(WORDS.fullmatch(value)) if isinstance(value, str) else isinstance(value, int) and abs(value) <= MOST


def _are_settings(value: Any) -> bool:
    names = list(value) if are_deltas(value) else ['']
    return len(names) <= MOST_PARTS and all(n.isidentifier() and n.isascii() and n[0] != '_' for n in names)


def _are(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MOST_PARTS and all(map(right, value))


def _is_path(value: Any) -> bool:
    return is_text(value) and bool(PATH.fullmatch(value))


def _is_spt(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {'allocation', 'dropout'} and _is_option(value['dropout'])


# every part -> whether a value is right, and what that is
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'name': (is_name, 'a name'),
    'host': (_is_path, "a class's key in the place table"),
    'model': (is_text, 'text of one line'),
    'backbone': (lambda value: value == '' or _is_path(value), 'a path in a model'),
    'head': (_are(_is_path), 'paths in a model'),
    'deltas': (_are_settings, f'settings of up to {MOST_PARTS} deltas, by name'),
    'train': (_are(_is_path), f'up to {MOST_PARTS} train names'),
    'frozen_sha256': (is_sha256, 'a SHA-256'),
    **dict.fromkeys(('trainable', 'total'), (is_count, 'a whole number from 0 up')),
    'classes': (none_or(are_classes), f'up to {MOST_CLASSES:,} names of one line'),
    'spt': (none_or(_is_spt), "SPT's allocation and dropout"),
    'license': (is_text, 'text of one line'),
    'versions': (
        lambda value: isinstance(value, dict) and all(map(is_text, [*value, *value.values()])),
        'texts by name',
    ),
    'created': (is_time, 'a time in ISO format'),
}
