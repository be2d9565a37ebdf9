"""Your own data: a folder per class, or lists like those of Kinetics."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from ..datasets.list_file import Sample
from ..errors import UserError, tellable
from .archives import is_archive
from .found import KINDS, Found, PrepareArgs, walk
from .lists import Lists, index_of, read_names
from .own_lists import LabelledFile, read_labelled_files
from .place import Place
from .progress import warn

# names that a list or a folder of class folders may have
PARTS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test', 'testing')}
MEDIA_FOLDERS = ('.', 'videos', 'images')
Files = dict[str, list[LabelledFile]]  # by part


def read(src: Path, place: Place, args: PrepareArgs) -> Found:
    """Read your own data in the folder or list ``src``.

    Raises:
        UserError: if there is neither a list nor a class folder, videos and images are mixed, or a file or a class
            is not what it should be.
    """
    if is_archive(src):
        raise UserError(f'--src {src} is an archive; unpack it and give the folder.')
    if src.is_file():
        paths, folder = {'trainval': src}, src.parent
    else:
        paths, folder = _parts(lambda name: [src / f'{name}.csv', src / f'{name}.txt'], Path.is_file), src
    if paths:
        if 'train' not in paths and 'trainval' not in paths:
            there = next(iter(paths.values()))
            raise UserError(f'{src} has {there.name} but no list to train on; add train{there.suffix}.')
        files, root = _relative({part: read_labelled_files(path) for part, path in paths.items()}, folder)
    else:
        files, root = _from_folders(src, place), src
    lists, classes = _labelled(files, read_names(args.classes) if args.classes else None, src)
    return Found(_kind(files, src), classes, lists, root, own=True)


def _parts(candidates: Callable[[str], list[Path]], there: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the parts of the data that exist at one of their candidate paths."""
    paths = {part: [p for name in names for p in candidates(name) if there(p)] for part, names in PARTS.items()}
    return {part: found[0] for part, found in paths.items() if found}


def _from_folders(src: Path, place: Place) -> Files:
    if (place.out / 'dataset.json').resolve().is_relative_to(src.resolve()):
        raise UserError(f'--out {place.out} lies in --src {src}, whose folders are classes; choose another.')
    folders = {p.name.casefold(): p for p in sorted(src.iterdir(), reverse=True)}
    parts = _parts(lambda name: [folders.get(name, src / name)], Path.is_dir)
    named = {path.name for path in parts.values()}
    parts = {part: path for part, path in parts.items() if any(p.is_dir() for p in path.iterdir())}
    if 'train' not in parts and named:
        if named == {p.name for p in src.iterdir() if p.is_dir()}:
            raise UserError(f'{src} has {", ".join(sorted(named))}; train in it should hold a folder per class.')
        parts = {}  # then test is the name of a class
    left_out = [p for p in src.iterdir() if parts and p not in parts.values()]
    files = {part: _class_files(folder, src, left_out) for part, folder in (parts or {'trainval': src}).items()}
    _tell_left_out(sorted(left_out), src)
    if not any(files.values()):
        raise UserError(
            f'{src} has neither a folder per class with videos or images in it, nor train.csv or train.txt.'
        )
    return files


def _class_files(folder: Path, root: Path, left_out: list[Path]) -> list[LabelledFile]:
    """Return every video and image below the class folders of ``folder``, relative to ``root``, with its class.

    Anything else is added to ``left_out``.
    """
    known = KINDS['video'] | KINDS['image']
    found = []
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))
    left_out += [p for p in folder.iterdir() if p.name not in classes]
    for name in classes:
        count = len(found)
        for below, _, names in walk(folder / name, left_out):
            for file in names:
                if os.path.splitext(file)[1].lower() in known:
                    found.append(LabelledFile(str((below / file).relative_to(root)), name, str(folder / name)))
                else:
                    left_out.append(below / file)
        if len(found) == count:
            warn(f'{folder / name} has no videos or images, so it is not a class.')
    return found


def _tell_left_out(paths: list[Path], src: Path) -> None:
    """Warn of everything but videos and images of classes, by suffix."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        what = 'folders' if path.is_dir() else path.suffix.lower() or 'files without a suffix'
        groups['hidden' if path.name.startswith('.') else what].append(path.relative_to(src))
    told = sorted(groups.items(), key=lambda group: -len(group[1]))
    text = ', '.join(f'{len(found)} {what} (such as {found[0]})' for what, found in told[:9])
    if paths:
        rest = f', and {len(told) - 9} more kinds' if len(told) > 9 else ''
        warn(f'{len(paths)} entries of {src} are not videos or images of a class and are left out: {text}{rest}.')


def _kind(files: Files, src: Path) -> str:
    suffixes = Counter(os.path.splitext(file.path)[1].lower() for part in files.values() for file in part)
    kinds = {next((k for k, known in KINDS.items() if suffix in known), suffix) for suffix in suffixes}
    if kinds - set(KINDS):
        raise UserError(f'{src}: {min(kinds - set(KINDS))!r} is not a known suffix of a video or an image.')
    if len(kinds) > 1:
        raise UserError(f'{src} has both videos and images ({dict(suffixes)}); prepare them separately.')
    return kinds.pop()


def _labelled(files: Files, names: list[str] | None, src: Path) -> tuple[Lists, list[str]]:
    """Return the lists with labels from 0, and the class names.

    Labels are indices if all of them are numbers, unless those numbers are the names of the classes.
    """
    said = {file.label for part in files.values() for file in part}
    numbers = all(label.isascii() and label.isdigit() for label in said) and not said <= set(names or ())
    if numbers:
        if wrong := [label for label in said if not re.fullmatch('0{0,9}[0-9]{1,5}', label)]:
            raise UserError(f'{src}: the label {min(wrong)[:20]} is not an index of a class, which count from 0.')
        classes = names or [str(i) for i in range(max(map(int, said)) + 1)]
        labels = {str(i): i for i in range(len(classes))}
        if absent := len(set(labels.values()) - set(map(int, said))):
            warn(f'{absent} of the {len(classes)} classes have no sample in {src}.')
    else:
        if not names:
            _check_names(files)
        classes = names or sorted(said)
        labels = {name: i for i, name in enumerate(classes)}
    key = (lambda label: str(int(label))) if numbers else str
    lists = {
        part: [Sample(path, index_of(labels, key(label), where)) for path, label, where in listed]
        for part, listed in files.items()
    }
    return lists, classes


def _check_names(files: Files) -> None:
    """Refuse a mix of class names and numbers: one slip in a list of indices would renumber every class."""
    found = [file for part in files.values() for file in part]
    numeric = any(re.fullmatch(r'[+-]?\d+(\.\d*)?', file.label, re.ASCII) for file in found)
    other = [file for file in found if not file.label.isdigit()]
    if numeric and other and not os.path.isdir(found[0].where):
        raise UserError(
            f'{other[0].where}: the label {tellable(repr(other[0].label))} is not an index from 0, and other labels '
            'are numbers; if they are names, list the names in --classes FILE.'
        )


def _relative(files: Files, folder: Path) -> tuple[Files, Path]:
    """Make every path relative to the media folder, and return that folder as well.

    It is the lists' folder, or ``videos`` or ``images`` in it if more of the files are there; if all paths are
    absolute it is their common folder.
    """
    paths = [file.path for part in files.values() for file in part]
    absolute = [p for p in paths if os.path.isabs(p)]
    if len(absolute) == len(paths):
        root = Path(os.path.commonpath([os.path.dirname(p) for p in paths]))
    else:
        roots = [folder / name for name in MEDIA_FOLDERS if (folder / name).is_dir()]
        root = max(roots, key=lambda r: sum((r / p).is_file() for p in paths))
    return {p: [file._replace(path=_below(file, root)) for file in part] for p, part in files.items()}, root


def _below(file: LabelledFile, root: Path) -> str:
    path = os.path.normpath(file.path)
    if os.path.isabs(path):
        path = os.path.relpath(path, os.path.abspath(root))
    if path.split('/')[0] == '..':
        raise UserError(f'{file.where}: {tellable(file.path)} lies outside of {root}; put the list above its files.')
    return path
