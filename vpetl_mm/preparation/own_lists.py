"""Reads a list of files and labels: "path label", "path,label", or a CSV with a header line."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .found import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .lists import read_text

PATH_COLUMNS = (
    'path',
    'file',
    'filename',
    'file_name',
    'filepath',
    'video',
    'video_path',
    'image',
    'image_path',
    'name',
)
LABEL_COLUMNS = ('label', 'class', 'class_id', 'class_name', 'category', 'target', 'label_id', 'action')


class Row(NamedTuple):
    """A file and its label as a list gives them, and where it does."""

    path: str
    label: str
    where: str


def read_rows(path: Path) -> list[Row]:
    """The rows of a list.

    Values are parted by a comma where the first cell is a file's name, otherwise by the last space or tab.

    Raises:
        UserError: when it is missing, empty, not UTF-8, or a line has no label.
    """
    text = read_text(path)
    try:
        cells = list(csv.reader(text.splitlines(), strict=True, skipinitialspace=True))
    except csv.Error as error:
        cells, reason = [], str(error)
    else:
        reason = ''
    numbered = [(n, [c.strip() for c in row]) for n, row in enumerate(cells, 1) if any(c.strip() for c in row)]
    header = _header(numbered[0][1]) if numbered else None
    if header:
        rows = [_pick(row, header, f'{path}, line {n}') for n, row in numbered[1:]]
    elif numbered and len(numbered[0][1]) > 1 and _is_media(numbered[0][1][0]):
        rows = [_pair(row, f'{path}, line {n}') for n, row in numbered]
    else:
        rows = [_spaced(line, f'{path}, line {n}') for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise UserError(f'{path} lists nothing{f" ({reason})" if reason else ""}.')
    return rows


def _is_media(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _header(cells: list[str]) -> tuple[int, int] | None:
    """The columns of the path and of the label, where the first line names them."""
    names = [c.lower() for c in cells]
    path = next((names.index(c) for c in PATH_COLUMNS if c in names), None)
    label = next((names.index(c) for c in LABEL_COLUMNS if c in names), None)
    return None if path is None or label is None else (path, label)


def _pick(cells: list[str], columns: tuple[int, int], where: str) -> Row:
    if len(cells) <= max(columns) or not all(cells[c] for c in columns):
        raise UserError(f'{where}, has no label: {",".join(cells)!r}; a line is "path,label".')
    return Row(cells[columns[0]], cells[columns[1]], where)


def _pair(cells: list[str], where: str) -> Row:
    if len(cells) > 2:
        raise UserError(f'{where}, is more than "path,label": {",".join(cells)!r}; a name with a comma needs quotes.')
    return _pick(cells, (0, 1), where)


def _spaced(line: str, where: str) -> Row:
    parts = line.strip().rsplit(None, 1)
    if len(parts) == 2 and not any(map(_is_media, parts)) and (suffix := os.path.splitext(parts[0])[1]):
        raise UserError(f'{where}: {suffix!r} is no suffix of a video or an image that is known here.')
    if len(parts) < 2 or not _is_media(parts[0]):
        raise UserError(f'{where}, should be "path label" or "path,label", and is {line.strip()[:200]!r}.')
    return Row(*parts, where)
