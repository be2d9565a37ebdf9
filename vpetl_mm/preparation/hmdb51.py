"""HMDB51: a folder or a .rar archive for each class, and the official lists of three splits."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ..datasets.list_file import Sample
from ..errors import UserError
from .archives import unpack
from .found import Found, PrepareArgs, need_folder, walk
from .lists import Lists, read_text
from .place import Place

HOMEPAGE = 'https://serre.lab.brown.edu/hmdb51.html'
OFFICIAL = {'trainval': 3_570, 'test': 1_530, 'classes': 51}
ALL_VIDEOS, ALL_LISTS = 'hmdb51_org.rar', 'test_train_splits.rar'
PARTS = {'1': 'trainval', '2': 'test', '0': None}  # neither uses 0


def read(src: Path, place: Place, args: PrepareArgs) -> Found:
    """Read the lists of HMDB51 in the folder ``src``, and unpack its archives.

    Raises:
        UserError: if lists or videos are missing or damaged.
    """
    src = need_folder(src, "HMDB51's class folders or .rar files and its lists", ALL_VIDEOS)
    split = args.split or 1
    files = _list_files(src, place, split)
    lists: Lists = {'trainval': [], 'test': []}
    if len(files) > OFFICIAL['classes']:
        raise UserError(f'{src} has {len(files)} *_test_split{split}.txt lists, and HMDB51 has 51 classes.')
    for label, (name, file) in enumerate(files.items()):
        samples = _samples(file, name, label)
        if not samples:
            raise UserError(f'{file} is empty; get {ALL_LISTS} from {HOMEPAGE}')
        for part, sample in samples:
            lists[part].append(sample)
    root = _videos(src, place, list(files))
    return Found('video', list(files), lists, root, official=OFFICIAL, split=split)


def _list_files(src: Path, place: Place, split: int) -> dict[str, Path]:
    """Map each class name, in alphabetical order, to its list."""
    ending = f'_test_split{split}.txt'
    archive, others = None, set()
    for folder, _, names in walk(src):
        found = {n.removesuffix(ending): folder / n for n in names if n.endswith(ending)}
        if found:
            return dict(sorted(found.items()))
        others |= {m[1] for n in names if (m := re.search(r'_test_split([1-3])\.txt$', n))}
        archive = archive or next((folder / n for n in names if n == ALL_LISTS), None)
    if archive:
        target = place.new('lists')
        unpack(archive, target, lambda name: name if name.endswith('.txt') else None)
        if target != src:
            return _list_files(target, place, split)
    there = f'; it has those of split {", ".join(sorted(others))}' if others else ''
    raise UserError(f'{src} has no *{ending} lists, nor {ALL_LISTS}{there}; get {ALL_LISTS} from {HOMEPAGE}')


def _samples(path: Path, name: str, label: int) -> list[tuple[str, Sample]]:
    samples = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        file, _, part = line.strip().rpartition(' ')
        if not file or part not in PARTS:
            raise UserError(f'{path}, line {number}, should be a file name and 0, 1 or 2, and is {line.strip()!r}.')
        if PARTS[part]:
            samples.append((PARTS[part], Sample(f'{name}/{file.strip()}', label)))
    return samples


def _videos(src: Path, place: Place, classes: list[str]) -> Path:
    """Return the folder of the class folders; unpack the archives if they hold more classes than that."""
    wanted = set(classes)
    folders, archives, whole = ([], src), ([], src), None
    for folder, below, names in walk(src):
        folders = max(folders, ([b for b in below if b in wanted], folder), key=lambda x: len(x[0]))
        rars = [n for n in names if n.endswith('.rar') and n.removesuffix('.rar') in wanted]
        archives = max(archives, (rars, folder), key=lambda x: len(x[0]))
        whole = whole or next((folder / n for n in names if n == ALL_VIDEOS), None)
    for found, folder in (archives, folders):
        if found:
            _check_listed(folder, wanted)
    if len(archives[0]) > len(folders[0]):
        target, earlier = place.new('unpacked'), place.earlier and place.earlier / 'videos'
        for archive in (archives[1] / n for n in archives[0]):
            unpack(archive, target, lambda entry, name=archive.stem: f'{name}/{PurePosixPath(entry).name}', earlier)
        return target
    if folders[0]:
        if packed := sorted({n.removesuffix('.rar') for n in archives[0]} - set(folders[0])):
            raise UserError(
                f'{archives[1] / packed[0]}.rar is not unpacked, although other classes are; unpack it as well.'
            )
        return folders[1]
    inner = place.building / 'whole'
    if whole and src != inner:
        unpack(whole, place.new('whole'), lambda name: name)
        return _videos(inner, place, classes)
    raise UserError(f'{src} has neither class folders such as {classes[0]}, nor {classes[0]}.rar, nor {ALL_VIDEOS}.')


def _check_listed(folder: Path, wanted: set[str]) -> None:
    """Refuse a class beside the ``wanted`` ones that no list names: it would shift every later label."""
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix('.rar')
        archive = path.suffix == '.rar' and path.name not in (ALL_VIDEOS, ALL_LISTS)
        if name not in wanted and (archive or (path.is_dir() and any(path.glob('*.avi')))):
            raise UserError(f'{path} has no list {name}_test_split*.txt; get {ALL_LISTS} from {HOMEPAGE}')
