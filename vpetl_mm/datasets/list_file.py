"""Lists of ``path label`` lines, which mmaction2 and mmpretrain read without checking them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

# while lists leave lines out: the sentence about each
_left_out: ContextVar[dict[str, None] | None] = ContextVar('left_out', default=None)


class Sample(NamedTuple):
    """A file, or the index of an image in an array, and its class from 0."""

    path: str
    label: int


@contextmanager
def leaving_out() -> Iterator[dict[str, None]]:
    """Inside, :func:`read_list` leaves out lines whose label lies outside the classes, instead of raising.

    Yields:
        The sentences about them, as keys in their order; a list that is read twice adds none.
    """
    told: dict[str, None] = {}
    token = _left_out.set(told)
    try:
        yield told
    finally:
        _left_out.reset(token)


def read_lines(file: str | Path) -> list[str]:
    """Return the lines of a file without outer spaces; bytes that are not UTF-8 become surrogates."""
    text = Path(file).read_text(encoding='utf-8-sig', errors='surrogateescape')
    return [line.strip() for line in text.split('\n')]


def parse_line(line: str, delimiter: str = ' ') -> Sample | None:
    """Return the path and the label of a line, or None if it does not have both.

    The path may contain the delimiter: the label is what follows the last one.
    """
    path, _, label = line.rpartition(delimiter)
    if not path.strip() or '\0' in path or not re.fullmatch('-?[0-9]{1,9}', label):
        return None
    return Sample(path.strip(), int(label))


def read_list(file: str | Path, num_classes: int | None, delimiter: str = ' ') -> list[Sample]:
    """Read the samples of a list; empty lines are skipped.

    Args:
        file: the list.
        num_classes: labels must lie in [0, num_classes); None sets no upper limit.
        delimiter: between path and label. Defaults to a space.

    Raises:
        UserError: if the list is missing or empty, a line has no label, or a label lies outside the classes.
    """
    if not Path(file).is_file():
        raise UserError(f'The annotation file {file} does not exist.')
    samples, left_out = [], _left_out.get()
    for number, line in enumerate(read_lines(file), 1):
        if not line:
            continue
        sample = parse_line(line, delimiter)
        if sample is None:
            raise UserError(f'{file}, line {number} has no label: {line!r}; a line is "path{delimiter}label".')
        if sample.label < 0 or (num_classes is not None and sample.label >= num_classes):
            last = 'n' if num_classes is None else num_classes - 1
            told = f'{file}, line {number}: label {sample.label} is outside the classes 0 to {last} (num_classes).'
            if left_out is None:
                raise UserError(told)
            left_out[told] = None
            continue
        samples.append(sample)
    if not samples:
        raise UserError(f'The annotation file {file} is empty.')
    return samples


def write_list(file: Path, samples: Iterable[Sample]) -> None:
    """Write a list."""
    file.write_text(''.join(f'{path} {label}\n' for path, label in samples), encoding='utf-8', newline='\n')
