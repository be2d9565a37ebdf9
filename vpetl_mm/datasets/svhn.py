"""SVHN's cropped digits ("format 2"), which mmpretrain lacks, from the official .mat files."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset
from scipy.io import loadmat, whosmat

from ..bounds import most_bytes
from ..errors import UserError
from .holdout import Holdout, check_split

HOMEPAGE = 'http://ufldl.stanford.edu/housenumbers/'
NUMBERS = {'double', 'single', 'logical', *(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64))}
COMPRESSED, PIECE = 15, 1 << 16  # a type of element in version 5; bytes, which inflate to 66 MB at most


def _variables(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shapes and types of X and y in a .mat file that is not trusted, before scipy reads either.

    Raises:
        ValueError: if one is not an array of numbers, or the file would take more memory than its size allows.
        Exception: of many kinds, if the file is damaged.
    """
    most = most_bytes(file.stat().st_size)
    with open(file, 'rb') as stream:
        order = {b'IM': '<', b'MI': '>'}.get(stream.read(128)[126:])  # other versions compress nothing that is read
        while order and len(tag := stream.read(8)) == 8:
            kind, size = struct.unpack(f'{order}II', tag)
            end, inflate = stream.tell() + size, zlib.decompressobj()
            while kind == COMPRESSED and (piece := stream.read(min(PIECE, end - stream.tell()))):
                most -= len(inflate.decompress(piece))
                if most < 0:
                    raise ValueError('it takes more than 100 times its own size unpacked')
            stream.seek(end)
    found = [variable for variable in whosmat(file) if variable[0] in ('X', 'y')]
    variables = {name: (shape, kind) for name, shape, kind in found if kind in NUMBERS}
    if len(variables) != len(found):
        raise ValueError('X and y should be one array of numbers each')
    return variables


def read_mat(file: Path, labels_only: bool = False) -> dict[str, np.ndarray]:
    """Read and check an SVHN file that is not trusted.

    Args:
        file: such as ``train_32x32.mat``.
        labels_only: do not read the images. Defaults to False.

    Returns:
        'X', the images [32, 32, 3, N] of uint8, and 'y', the labels [N, 1] from 1 to 10, where 10 means the digit 0.

    Raises:
        UserError: if the file is missing, damaged, or holds something else.
    """
    how = f'download {file.name} from {HOMEPAGE} to {file.parent}.'
    if not file.is_file():
        raise UserError(f'{file} does not exist; {how}')
    try:
        variables = _variables(file)
        content = loadmat(file, variable_names=['y'] if labels_only else ['X', 'y'])
    except Exception as error:  # scipy names no set of errors for a damaged file, and raises a dozen kinds
        raise UserError(f'{file} is damaged or not a .mat file ({error}); {how}') from error
    shape, _ = variables.get('y', ((), ''))
    count = math.prod(shape)
    if shape != (count, 1) or not count or variables.get('X') != ((32, 32, 3, count), 'uint8'):
        raise UserError(
            f'{file} should hold X (32 x 32 x 3 x N, uint8) and y (N x 1), and has {variables or "neither"}; {how}'
        )
    outside = content['y'][~np.isin(content['y'], range(1, 11))]
    if len(outside):
        raise UserError(f'{file} has the label {outside[0]}, outside 1 to 10; {how}')
    return content


class SVHN(Holdout, BaseDataset):
    """Digits of house numbers, ``dict(img=[32, 32, 3] uint8 RGB, gt_label=int)`` each; the class is the digit.

    The training images take 0.23 GB, shared by the loader's workers; measured, the process grows by 0.7 GB while
    it reads them and keeps 0.5 GB of that ('extra' is seven times as large).

    Args:
        data_root: the folder that holds ``train_32x32.mat`` (73,257 images) and ``test_32x32.mat`` (26,032).
        split: ``'train'``, ``'test'`` or ``'extra'`` (531,131 images). Defaults to 'train'.
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset.

    Raises:
        UserError: for another split, or a file that is missing, damaged, or holds something else.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple('0123456789'))
    num_classes = 10

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        split = check_split('SVHN', split, ('train', 'test', 'extra'))
        super().__init__(ann_file=f'{split}_32x32.mat', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return all images and labels of the file, in its order."""
        content = read_mat(Path(self.ann_file))
        # contiguous per image, so that each is pickled, and read back, as it is
        images = np.ascontiguousarray(content['X'].transpose(3, 0, 1, 2))
        labels = content['y'][:, 0]
        return [dict(img=image, gt_label=int(label) % 10) for image, label in zip(images, labels, strict=True)]
