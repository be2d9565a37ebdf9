"""Text, JSON and class names read from files, and checks of the lists made from them."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..datasets.list_file import Sample
from ..errors import UserError, did_you_mean, tellable
from ..files import from_json

Lists = dict[str, list[Sample]]


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text without its byte order mark.

    Raises:
        UserError: if it is missing or not UTF-8.
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
    """Read a JSON file that should hold a ``kind`` (list or dict).

    Raises:
        UserError: if it is missing, damaged or holds something else.
    """
    text = read_text(path)
    try:
        content = from_json(text)
    except ValueError as error:
        raise UserError(f'{path} is truncated or not JSON ({error}).') from error
    if not isinstance(content, kind):
        raise UserError(f'{path} should hold a JSON {kind.__name__}, and holds a {type(content).__name__}.')
    return content


def read_names(path: Path) -> list[str]:
    """Read class names, one per line; empty lines at the end are skipped."""
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not all(names) or not names:
        raise UserError(f'{path} should have a class name on every line.')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'{path} names the class {twice[0]!r} twice.')
    return names


def index_of(classes: dict[str, int], name: str, where: object) -> int:
    """Return the label of a class name; raise :class:`UserError` with the nearest name if it is not in the list."""
    if name not in classes:
        hint = did_you_mean(name, classes)
        raise UserError(f"{where}: '{tellable(name)}' is not among the {len(classes)} classes.{hint}")
    return classes[name]


def check_path(path: str, where: object) -> None:
    """Refuse a path that a line of a list cannot hold, or that leaves the media folder."""
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        raise UserError(f"{where}: the file name '{tellable(path)}' is not UTF-8; rename it (convmv does).") from None
    if path.splitlines() != [path] or path.strip() != path or '\0' in path:
        raise UserError(f'{where}: the file name {path!r} has a line break or a space at an end; rename it.')
    if posixpath.isabs(path) or '..' in path.split('/'):
        raise UserError(f'{where}: {path!r} is outside the folder of the media.')


def without_repeats(samples: list[Sample], where: object) -> list[Sample]:
    """Return each sample once.

    Raises:
        UserError: for a path that has two labels.
    """
    seen: dict[str, int] = {}
    for path, label in samples:
        if seen.setdefault(path, label) != label:
            raise UserError(f'{where}: {tellable(path)} is listed with two labels, {seen[path]} and {label}.')
    return [Sample(*item) for item in seen.items()]


def check_apart(lists: Lists, where: object) -> None:
    """Refuse a file that is in two lists."""
    home: dict[str, str] = {}
    for name, samples in lists.items():
        for path, _ in samples:
            if home.setdefault(path, name) != name:
                raise UserError(f'{where}: {tellable(path)} is in both {home[path]} and {name}; keep it in one.')


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write text, one line each."""
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
