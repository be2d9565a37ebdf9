"""SVHN's cropped digits ("format 2"), which mmpretrain lacks, from the official .mat files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset
from scipy.io import loadmat, whosmat

from ..bounds import most_bytes
from ..errors import UserError, unknown
from .holdout import Holdout

HOMEPAGE = 'http://ufldl.stanford.edu/housenumbers/'
SPLITS = ('train', 'test', 'extra')
NUMBERS = {'double', 'single', 'logical', *(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64))}
COMPRESSED, PIECE = 15, 1 << 16  # a type of element in version 5; bytes, which inflate to 66 MB at most


def check_mat(file: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of X and y in a .mat file that is not trusted, before scipy reads either.

    Raises:
        ValueError: where one is no array of numbers, or the file would take more memory than its size allows.
        Exception: of many kinds, where it is damaged.
    """
    most = most_bytes(Path(file).stat().st_size)
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
    shapes = {name: shape for name, shape, kind in found if kind in NUMBERS}
    if len(shapes) != len(found):
        raise ValueError('X and y should be one array of numbers each')
    return shapes


class SVHN(Holdout, BaseDataset):
    """House numbers' digits, ``dict(img=[32, 32, 3] uint8 RGB, gt_label=int)`` each.

    The class is the digit; the files' label 10, which means the digit 0, becomes 0. The training images take
    0.23 GB, shared by the loader's workers; measured, the process grows by 0.7 GB while it reads them and by
    0.5 GB for good ('extra' is seven times as large).

    Args:
        data_root: the folder that holds ``train_32x32.mat`` (73,257 images) and ``test_32x32.mat`` (26,032).
        split: ``'train'``, ``'test'`` or ``'extra'`` (531,131 images). Defaults to 'train'.
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset.

    Raises:
        UserError: for another split, or a file that is missing, damaged, or holds something else.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple('0123456789'))
    num_classes = 10

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in SPLITS:
            raise unknown('split of SVHN', split, SPLITS)
        self.split = split
        super().__init__(ann_file=f'{split}_32x32.mat', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """All images and labels of the file, in its order."""
        images, labels = self._read()
        return [dict(img=image, gt_label=int(label) % 10) for image, label in zip(images, labels, strict=True)]

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Images [N, 32, 32, 3] and labels [N], 1 to 10."""
        if not Path(self.ann_file).is_file():
            raise UserError(f'{self.ann_file} does not exist; {self._how()}.')
        try:
            check_mat(self.ann_file)
            content = loadmat(self.ann_file, variable_names=['X', 'y'])
        except Exception as error:  # scipy names no set of errors for a damaged file, and raises a dozen kinds
            raise UserError(f'{self.ann_file} is damaged or not a .mat file ({error}); {self._how()}.') from error
        images, labels = (np.asarray(content.get(name)) for name in ('X', 'y'))
        self._check(images, labels)
        # contiguous by image: each is then pickled, and read back, as it is
        return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels[:, 0]

    def _check(self, images: np.ndarray, labels: np.ndarray) -> None:
        count = images.shape[-1] if images.ndim else 0
        if images.shape != (32, 32, 3, count) or images.dtype != np.uint8 or labels.shape != (count, 1) or not count:
            raise UserError(
                f'{self.ann_file} should hold X (32 x 32 x 3 x N, uint8) and y (N x 1), and has '
                f'X {images.shape} {images.dtype} and y {labels.shape}; {self._how()}.'
            )
        outside = labels[~np.isin(labels, range(1, 11))]
        if len(outside):
            raise UserError(f'{self.ann_file} has the label {outside[0]}, outside 1 to 10; {self._how()}.')

    def _how(self) -> str:
        return f'download {Path(self.ann_file).name} from {HOMEPAGE} to {self.data_root or "."}'
