"""SVHN's cropped digits: train_32x32.mat and test_32x32.mat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ..datasets.svhn import HOMEPAGE, SVHN, check_mat
from ..errors import UserError
from .found import Found, Request, need_folder
from .lists import Sample
from .place import Place

OFFICIAL = {'trainval': 73_257, 'test': 26_032, 'classes': 10}
FILES = {'trainval': 'train_32x32.mat', 'test': 'test_32x32.mat', 'extra': 'extra_32x32.mat'}


def read(src: Path, _: Place, request: Request) -> Found:
    """What the folder ``src`` holds of SVHN; the extra images are optional and in no list.

    Raises:
        UserError: when a file is missing, damaged, or holds something else.
    """
    if src.is_file() and src.name in FILES.values():
        src = src.parent
    need_folder(src, ' and '.join(list(FILES.values())[:2]))
    lists = {name: _samples(src / FILES[name]) for name in ('trainval', 'test')}
    others = {file: src / file for file in FILES.values() if (src / file).is_file()}
    return Found('array', list(SVHN.METAINFO['classes']), lists, others=others, official=OFFICIAL)


def _samples(path: Path) -> list[Sample]:
    """Index and digit of every image; the images themselves, 0.2 GB, are not read."""
    how = f'download {path.name} from {HOMEPAGE}'
    if not path.is_file():
        raise UserError(f'{path} does not exist; {how}')
    try:
        shapes = check_mat(path)
        labels = np.asarray(loadmat(path, variable_names=['y']).get('y'))
    except Exception as error:  # scipy names no set of errors for a damaged file, and raises a dozen kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f'{path} is truncated, damaged or not a .mat file ({error}); {how}') from error
    count = len(labels) if labels.ndim == 2 else 0
    if not count or labels.shape != (count, 1) or shapes.get('X') != (32, 32, 3, count):
        raise UserError(f'{path} should hold X (32 x 32 x 3 x N) and y (N x 1), and has {shapes}; {how}')
    outside = labels[~np.isin(labels, range(1, 11))]
    if len(outside):
        raise UserError(f'{path} has the label {outside[0]}, outside of 1 to 10; {how}')
    return [Sample(str(i), int(label) % 10) for i, label in enumerate(labels[:, 0])]  # 10 stands for the digit 0
