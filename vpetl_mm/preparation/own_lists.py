"""Reads a list of files and labels: "path label", "path,label", or a CSV with a header line."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .found import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .lists import read_text

PATH_COLUMNS = ('path', 'file', 'filename', 'file_name', 'filepath', 'video', 'video_path')
PATH_COLUMNS += ('image', 'image_path', 'name')
LABEL_COLUMNS = ('label', 'class', 'class_id', 'class_name', 'category', 'target', 'label_id', 'action')


class LabelledFile(NamedTuple):
    """A file and its label as a list has them, and the line of the list."""

    path: str
    label: str
    where: str


def read_labelled_files(path: Path) -> list[LabelledFile]:
    """Read a list of files and their labels.

    Columns are separated by commas if the first cell is a file name, otherwise by the last space or tab of a line.

    Raises:
        UserError: if the list is missing, empty or not UTF-8, or a line has no label.
    """
    text = read_text(path)
    lines, reason = text.splitlines(), ''
    try:
        cells = list(csv.reader(lines, strict=True, skipinitialspace=True))
    except csv.Error as error:
        cells, reason = [], f' ({error})'
    rows = [([c.strip() for c in row], f'{path}, line {n}') for n, row in enumerate(cells, 1) if ''.join(row).strip()]
    header = _header(rows[0][0]) if rows else None
    if header:
        files = [_pick(row, header, where) for row, where in rows[1:]]
    elif rows and len(rows[0][0]) > 1 and _is_media(rows[0][0][0]):
        files = [_pair(row, where) for row, where in rows]
    else:
        files = [_spaced(line.strip(), f'{path}, line {n}') for n, line in enumerate(lines, 1) if line.strip()]
    if not files:
        raise UserError(f'{path} lists nothing{reason}.')
    return files


def _is_media(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _header(cells: list[str]) -> tuple[int, int] | None:
    """Return the columns of the path and of the label if the first line names them."""
    names = [c.lower() for c in cells]
    path = next((names.index(c) for c in PATH_COLUMNS if c in names), None)
    label = next((names.index(c) for c in LABEL_COLUMNS if c in names), None)
    return None if path is None or label is None else (path, label)


def _pick(cells: list[str], columns: tuple[int, int], where: str) -> LabelledFile:
    if len(cells) <= max(columns) or not all(cells[c] for c in columns):
        raise UserError(f'{where}, has no label: {",".join(cells)!r}; a line is "path,label".')
    return LabelledFile(cells[columns[0]], cells[columns[1]], where)


def _pair(cells: list[str], where: str) -> LabelledFile:
    if len(cells) > 2:
        raise UserError(f'{where}, is more than "path,label": {",".join(cells)!r}; a name with a comma needs quotes.')
    return _pick(cells, (0, 1), where)


def _spaced(line: str, where: str) -> LabelledFile:
    parts = line.rsplit(None, 1)
    if len(parts) == 2 and not any(map(_is_media, parts)) and (suffix := os.path.splitext(parts[0])[1]):
        raise UserError(f'{where}: {suffix!r} is not a known suffix of a video or an image.')
    if len(parts) < 2 or not _is_media(parts[0]):
        raise UserError(f'{where}, should be "path label" or "path,label", and is {line[:200]!r}.')
    return LabelledFile(*parts, where)
