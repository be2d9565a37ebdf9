"""Lists of samples in the form that mmaction2 and mmpretrain read: a line ``path label`` for each."""

from __future__ import annotations

import difflib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, tellable
from ..files import from_json


class Sample(NamedTuple):
    """A file below the media folder (or the index of an image in an array), and its class from 0."""

    path: str
    label: int


Lists = dict[str, list[Sample]]


def read_text(path: Path) -> str:
    """The text of a file that should be UTF-8, a byte order mark left out.

    Raises:
        UserError: when it is missing or something else.
    """
    if not path.is_file():
        raise UserError(f'{path} does not exist.')
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first.'
        ) from error


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file that should be a ``kind`` (list or dict).

    Raises:
        UserError: when it is missing, damaged or something else.
    """
    try:
        content = from_json(read_text(path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{path} is truncated or no JSON ({error}).') from error
    if not isinstance(content, kind):
        raise UserError(f'{path} should hold a JSON {kind.__name__}, and holds a {type(content).__name__}.')
    return content


def read_names(path: Path) -> list[str]:
    """Class names, a line each; empty lines at the end are left out."""
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not all(names) or not names:
        raise UserError(f'{path} should have a class name on every line.')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'{path} names the class {twice[0]!r} twice.')
    return names


def index_of(classes: dict[str, int], name: str, where: object) -> int:
    """The label of a class name; a :class:`UserError` that names the nearest for one that is not in the list."""
    if name not in classes:
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f'; did you mean {near[0]!r}?' if near else '.'
        raise UserError(f"{where}: '{tellable(name)}' is not among the {len(classes)} classes{hint}")
    return classes[name]


def check_path(path: str, where: object) -> None:
    """Refuse what a line of a list cannot hold, and what would leave the media folder."""
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        raise UserError(f"{where}: the file name '{tellable(path)}' is not UTF-8; rename it (convmv does).") from None
    if path.splitlines() != [path] or path.strip() != path or '\0' in path:
        raise UserError(f'{where}: the file name {path!r} has a line break or a space at an end; rename it.')
    if posixpath.isabs(path) or '..' in path.split('/'):
        raise UserError(f'{where}: {path!r} lies outside of the folder of the media.')


def without_repeats(samples: Iterable[Sample], where: object) -> tuple[list[Sample], int]:
    """The samples, each once, and how many repeats were left out.

    Raises:
        UserError: for a path that has two labels.
    """
    seen: dict[str, int] = {}
    repeats = 0
    for path, label in samples:
        if seen.setdefault(path, label) != label:
            raise UserError(f'{where}: {tellable(path)} is listed with two labels, {seen[path]} and {label}.')
        repeats += 1
    return [Sample(*item) for item in seen.items()], repeats - len(seen)


def check_apart(lists: Lists, where: object) -> None:
    """Refuse a file that stands in two lists, or has two labels there."""
    home: dict[str, str] = {}
    for name, samples in lists.items():
        for sample in samples:
            if sample.path in home:
                first = home[sample.path]
                raise UserError(f'{where}: {tellable(sample.path)} is in both {first} and {name}; keep it in one.')
            home[sample.path] = name


def lines(samples: Iterable[Sample]) -> Iterator[str]:
    """A list's lines."""
    return (f'{path} {label}\n' for path, label in samples)


def write_list(path: Path, samples: Iterable[Sample]) -> None:
    """Write a list."""
    with open(path, 'w', encoding='utf-8', newline='\n') as stream:
        stream.writelines(lines(samples))
