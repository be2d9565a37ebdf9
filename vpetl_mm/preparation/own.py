"""Data of one's own: a folder per class, or lists in the manner of Kinetics."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError, tellable
from .archives import is_archive
from .found import KINDS, Found, Request, walk
from .lists import Sample, index_of, read_names
from .own_lists import Row, read_rows
from .place import Place
from .progress import warn

# the names that a list or a folder of class folders may have
PARTS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test', 'testing')}
MEDIA_FOLDERS = ('.', 'videos', 'images')
Rows = dict[str, list[Row]]


def read(src: Path, place: Place, request: Request) -> Found:
    """What the folder or list ``src`` holds.

    Raises:
        UserError: when there is neither a list nor a class folder, videos and images are mixed, a file or a
            class is not what it should be.
    """
    if is_archive(src):
        raise UserError(f'--src {src} is an archive; unpack it and give the folder.')
    if src.is_file():
        rows, root = {'trainval': read_rows(src)}, src.parent
    elif lists := _parts(lambda name: [src / f'{name}.csv', src / f'{name}.txt'], Path.is_file):
        _check_training(src, lists)
        rows, root = {part: read_rows(path) for part, path in lists.items()}, src
    else:
        return _from_folders(src, place, request)
    root = _relative(rows, root)
    lists, classes = _labelled(rows, _named(request), src)
    return Found(_kind(rows, src), classes, lists, root, own=True)


def _parts(candidates: Callable[[str], list[Path]], there: Callable[[Path], bool]) -> dict[str, Path]:
    """Which parts of the data lie at one of their candidate paths."""
    paths = {part: [p for name in names for p in candidates(name) if there(p)] for part, names in PARTS.items()}
    return {part: found[0] for part, found in paths.items() if found}


def _check_training(src: Path, lists: dict[str, Path]) -> None:
    if 'train' not in lists:
        there = next(iter(lists.values()))
        raise UserError(f'{src} has {there.name} but no list to train on; add train{there.suffix}.')


def _named(request: Request) -> list[str] | None:
    return read_names(request.classes) if request.classes else None


def _from_folders(src: Path, place: Place, request: Request) -> Found:
    if (place.out / 'dataset.json').resolve().is_relative_to(src.resolve()):
        raise UserError(f'--out {place.out} lies in --src {src}, whose folders are classes; choose another.')
    folders = {p.name.casefold(): p for p in sorted(src.iterdir(), reverse=True)}
    parts = _parts(lambda name: [folders.get(name, src / name)], Path.is_dir)
    named = {path.name for path in parts.values()}
    parts = {part: path for part, path in parts.items() if any(p.is_dir() for p in path.iterdir())}
    if 'train' not in parts and named:
        if named == {p.name for p in src.iterdir() if p.is_dir()}:
            raise UserError(f'{src} has {", ".join(sorted(named))}; train in it should hold a folder per class.')
        parts = {}  # test is then the name of a class
    left_out = [p for p in src.iterdir() if parts and p not in parts.values()]
    rows = {part: _class_rows(folder, src, left_out) for part, folder in (parts or {'trainval': src}).items()}
    _tell_left_out(sorted(left_out), src)
    if not any(rows.values()):
        raise UserError(
            f'{src} has neither a folder per class with videos or images in it, nor train.csv or train.txt.'
        )
    lists, classes = _labelled(rows, _named(request), src)
    return Found(_kind(rows, src), classes, lists, src, own=True)


def _class_rows(folder: Path, root: Path, left_out: list[Path]) -> list[Row]:
    """Every video and image below the class folders of ``folder``, relative to ``root``, and its class.

    Anything else is added to ``left_out``.
    """
    known = KINDS['video'] | KINDS['image']
    rows = []
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))
    left_out += [p for p in folder.iterdir() if p.name not in classes]
    for name in classes:
        count = len(rows)
        for below, _, files in walk(folder / name, left_out):
            for file in files:
                if os.path.splitext(file)[1].lower() in known:
                    rows.append(Row(str((below / file).relative_to(root)), name, str(folder / name)))
                else:
                    left_out.append(below / file)
        if len(rows) == count:
            warn(f'{tellable(folder / name)} has no videos or images, and is no class.')
    return rows


def _tell_left_out(paths: list[Path], src: Path) -> None:
    """Warn of what is neither a video nor an image of a class, by suffix."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        what = 'folders' if path.is_dir() else path.suffix.lower() or 'files without a suffix'
        groups['hidden' if path.name.startswith('.') else what].append(path.relative_to(src))
    told = sorted(groups.items(), key=lambda group: -len(group[1]))
    text = ', '.join(f'{len(found)} {what} (such as {tellable(found[0])})' for what, found in told[:9])
    if paths:
        rest = f', and {len(told) - 9} more kinds' if len(told) > 9 else ''
        warn(
            f'{len(paths)} entries of {src} are no videos or images in a class folder and are left out: {text}{rest}.'
        )


def _kind(rows: Rows, src: Path) -> str:
    suffixes = Counter(os.path.splitext(r.path)[1].lower() for part in rows.values() for r in part)
    kinds = {next((k for k, known in KINDS.items() if suffix in known), suffix) for suffix in suffixes}
    if kinds - set(KINDS):
        raise UserError(f'{src}: {min(kinds - set(KINDS))!r} is no suffix of a video or an image that is known here.')
    if len(kinds) > 1:
        raise UserError(f'{src} has both videos and images ({dict(suffixes)}); prepare them apart.')
    return kinds.pop()


def _labelled(rows: Rows, names: list[str] | None, src: Path) -> tuple[dict[str, list[Sample]], list[str]]:
    """The lists with labels from 0, and the class names.

    Labels are indices where all of them are numbers, unless those numbers are the names of the classes.
    """
    said = {r.label for part in rows.values() for r in part}
    numbers = all(label.isascii() and label.isdigit() for label in said) and not said <= set(names or ())
    if not numbers and not names:
        _check_names(rows)
    if numbers:
        if wrong := [label for label in said if not re.fullmatch('0{0,9}[0-9]{1,5}', label)]:
            raise UserError(f'{src}: the label {min(wrong)[:20]} is no index of a class, which count from 0.')
        count = len(names) if names else max(int(label) for label in said) + 1
        labels = {str(i): i for i in range(count)}
        classes = names or list(labels)
        absent = len(set(range(count)) - {int(label) for label in said})
        if absent:
            warn(f'{absent} of the {count} classes have no sample in {src}.')
    else:
        classes = names or sorted(said)
        labels = {name: i for i, name in enumerate(classes)}
    key = (lambda label: str(int(label))) if numbers else str
    lists = {p: [Sample(r.path, index_of(labels, key(r.label), r.where)) for r in part] for p, part in rows.items()}
    return lists, classes


def _check_names(rows: Rows) -> None:
    """Refuse class names some of which are numbers: one slip in a list of indices would renumber every class."""
    number = re.compile(r'[+-]?\d+(\.\d*)?', re.ASCII)
    found = [row for part in rows.values() for row in part]
    numeric = [row for row in found if number.fullmatch(row.label)]
    other = [row for row in found if not row.label.isdigit()]
    if numeric and other and not os.path.isdir(found[0].where):
        raise UserError(
            f'{other[0].where}: the label {tellable(repr(other[0].label))} is no index from 0, and other labels are '
            'numbers; --classes FILE names the classes where they are names.'
        )


def _relative(rows: Rows, folder: Path) -> Path:
    """Make every path of the lists relative to the media folder, in place; that folder.

    It is the lists' folder, or ``videos`` or ``images`` in it where more of the files are there; where all paths
    are absolute it is what they have in common.
    """
    paths = [r.path for part in rows.values() for r in part]
    absolute = [p for p in paths if os.path.isabs(p)]
    if len(absolute) == len(paths):
        root = Path(os.path.commonpath([os.path.dirname(p) for p in paths]))
    else:
        roots = [folder / name for name in MEDIA_FOLDERS if (folder / name).is_dir()]
        root = max(roots, key=lambda r: sum((r / p).is_file() for p in paths))
    for part, found in rows.items():
        rows[part] = [r._replace(path=_below(r, root)) for r in found]
    return root


def _below(row: Row, root: Path) -> str:
    path = os.path.normpath(row.path)
    if os.path.isabs(path):
        path = os.path.relpath(path, os.path.abspath(root))
    if path.split('/')[0] == '..':
        raise UserError(f'{row.where}: {tellable(row.path)} lies outside of {root}; put the list above its files.')
    return path
