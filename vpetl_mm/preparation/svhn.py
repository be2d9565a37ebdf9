"""SVHN's cropped digits: train_32x32.mat and test_32x32.mat."""

from __future__ import annotations

from pathlib import Path

from ..datasets.list_file import Sample
from ..datasets.svhn import SVHN, read_mat
from .found import Found, PrepareArgs, need_folder
from .place import Place

OFFICIAL = {'trainval': 73_257, 'test': 26_032, 'classes': 10}
FILES = {'trainval': 'train_32x32.mat', 'test': 'test_32x32.mat', 'extra': 'extra_32x32.mat'}


def read(src: Path, _: Place, args: PrepareArgs) -> Found:
    """Read the labels of SVHN in the folder ``src``; the extra images are optional and in no list.

    Raises:
        UserError: if a file is missing, damaged, or holds something else.
    """
    src = need_folder(src, ' and '.join(list(FILES.values())[:2]), *FILES.values())
    lists = {name: _samples(src / FILES[name]) for name in ('trainval', 'test')}
    others = {file: src / file for file in FILES.values() if (src / file).is_file()}
    return Found('array', list(SVHN.METAINFO['classes']), lists, others=others, official=OFFICIAL)


def _samples(path: Path) -> list[Sample]:
    labels = read_mat(path, labels_only=True)['y'][:, 0]  # the images take 0.2 GB
    return [Sample(str(i), int(label) % 10) for i, label in enumerate(labels)]  # 10 means the digit 0
