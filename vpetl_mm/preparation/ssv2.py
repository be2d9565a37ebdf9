"""Something-Something v2: webm files named by their ids, and the official JSON lists."""

from __future__ import annotations

import os
from pathlib import Path

from ..datasets.list_file import Sample
from ..errors import UserError
from .found import Found, PrepareArgs, need_folder
from .lists import index_of, read_json
from .place import Place

HOMEPAGE = 'https://www.qualcomm.com/developer/software/something-something-v-2-dataset'
# the test list has no labels: results are reported on the official validation list
OFFICIAL = {'trainval': 168_913, 'test': 24_777, 'classes': 174}
LISTS = {'trainval': 'train', 'test': 'validation'}
VIDEO_FOLDERS = ('20bn-something-something-v2', 'videos', '.')
SUFFIXES = ('.webm', '.mp4')


def read(src: Path, _: Place, args: PrepareArgs) -> Found:
    """Read the lists of Something-Something v2 in the folder ``src``.

    Raises:
        UserError: if a list is missing or damaged, a template is not among the labels, or there is no video.
    """
    need_folder(src, 'the videos and the JSON lists of Something-Something v2')
    labels = _labels(_json(src, 'labels'))
    root, names = _videos(src)
    lists = {ours: _samples(_json(src, theirs), labels, names) for ours, theirs in LISTS.items()}
    return Found('video', sorted(labels, key=labels.__getitem__), lists, root, official=OFFICIAL)


def _json(src: Path, name: str) -> Path:
    names = (f'something-something-v2-{name}.json', f'{name}.json')
    for folder in (src, src / 'labels', src / 'annotations'):
        for file in names:
            if (folder / file).is_file():
                return folder / file
    raise UserError(f'{src} has no {names[0]} (nor {names[1]}, nor either in labels/); get it from {HOMEPAGE}')


def _labels(path: Path) -> dict[str, int]:
    content = read_json(path, dict)
    try:
        labels = {str(name): int(index) for name, index in content.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f'{path} should give every class its index ({error}).') from error
    if sorted(labels.values()) != list(range(len(labels))) or not labels:
        raise UserError(f'{path} should number the classes from 0 without gaps.')
    return labels


def _videos(src: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder of the videos and the file name of each id."""
    for folder in VIDEO_FOLDERS:
        root = src / folder
        if root.is_dir():
            names = {os.path.splitext(n)[0]: n for n in os.listdir(root) if n.lower().endswith(SUFFIXES)}
            if names:
                return root, names
    raise UserError(
        f'{src} has no webm files, in itself or in {VIDEO_FOLDERS[0]}; join and unpack the downloaded parts: '
        f'cat {VIDEO_FOLDERS[0]}-?? | tar -xz'
    )


def _samples(path: Path, labels: dict[str, int], names: dict[str, str]) -> list[Sample]:
    samples = []
    for number, entry in enumerate(read_json(path, list), 1):
        if not isinstance(entry, dict) or not {'id', 'template'} <= entry.keys():
            raise UserError(f'{path}, entry {number}, should have an id and a template.')
        key = str(entry['id'])
        template = str(entry['template']).replace('[', '').replace(']', '')
        samples.append(Sample(names.get(key, f'{key}.webm'), index_of(labels, template, f'{path}, entry {number}')))
    if not samples:
        raise UserError(f'{path} is empty.')
    return samples
