"""Finds the files that paths, folders, patterns and lists name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from ...errors import UserError
from ...preparation.found import KINDS, walk
from ..bundle.bundle import About
from ..bundle.views import check_kind


def find_inputs(given: Sequence[str], about: About) -> list[list[str]]:
    """Return the files of each path, folder (with all below it) or pattern.

    A path that does not exist is returned as it is, so that it is reported in its turn.

    Raises:
        UserError: for a folder without files of the bundle's kind, a file of the other kind, or if nothing exists.
    """
    found = [_of(text, about) for text in given]
    if given and not any(os.path.exists(path) for paths in found for path in paths):
        what = 'matches nothing' if glob.has_magic(given[0]) else 'does not exist'
        rest = f', and neither do {len(given) - 1} more' if len(given) > 1 else ''
        raise UserError(f'{given[0]} {what}{rest}.')
    for path in (path for paths in found for path in paths):
        check_kind(about, path)
    return found


def _of(text: str, about: About) -> list[str]:
    if os.path.isdir(text):
        return _in_folder(text, about)
    if not os.path.lexists(text) and glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True))
        files = [path for path in found if not os.path.isdir(path)]
        return files or [path for folder in found for path in _in_folder(folder, about)] or [text]
    return [text]


def _in_folder(folder: str, about: About) -> list[str]:
    try:
        files = [str(parent / name) for parent, _, names in walk(folder) for name in names]
    except OSError as error:
        raise UserError(f'{error.filename} cannot be read: {error.strerror}.') from error
    suffixes = [os.path.splitext(path)[1].lower() for path in files]
    taken = [path for path, suffix in zip(files, suffixes, strict=True) if suffix in KINDS[about.media]]
    if not taken:
        other = 'image' if about.is_video else 'video'
        others = sum(suffix in KINDS[other] for suffix in suffixes)
        but = f', but {others:,} {other}s; {about.name} classifies {about.media}s' if others else ''
        raise UserError(f'There are no {about.media}s in {folder}{but}.')
    return taken


def listed_paths(content: bytes) -> list[str]:
    """Return the paths of a list, one a line, or each ended by a zero byte as by ``find -print0``."""
    separator = b'\0' if b'\0' in content else b'\n'
    lines = (line.removesuffix(b'\r') if separator == b'\n' else line for line in content.split(separator))
    return [os.fsdecode(line) for line in lines if line]
