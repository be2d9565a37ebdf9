"""Small images and their labels from one NumPy archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from ..bounds import check_zip, most_bytes
from ..errors import UserError, unknown
from .holdout import Holdout

SPLITS = ('train', 'test')


class ImageArrays(Holdout, BaseDataset):
    """Images held in an ``.npz`` file, ``dict(img=[H, W, 3] uint8 RGB, gt_label=int)`` each.

    Args:
        ann_file: the archive, with ``train_images`` and ``test_images`` [N, H, W, 3] (uint8, RGB),
            ``train_labels`` and ``test_labels`` [N] (whole numbers from 0), and ``classes``, their names.
        split: ``'train'`` or ``'test'``. Defaults to 'train'.
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset.

    Raises:
        UserError: for another split, or a file that is missing, damaged, or holds something else.
    """

    def __init__(self, ann_file: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in SPLITS:
            raise unknown('split of an array file', split, SPLITS)
        self.split = split
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """All images and labels of the split, in the file's order."""
        images, labels, classes = self._read()
        self._check(images, labels, len(classes))
        self.num_classes = len(classes)
        self._metainfo.setdefault('classes', tuple(map(str, classes)))
        return [dict(img=image, gt_label=int(label)) for image, label in zip(images, labels, strict=True)]

    def _read(self) -> list[np.ndarray]:
        if not Path(self.ann_file).is_file():
            raise UserError(f'The array file {self.ann_file} does not exist.')
        try:
            check_zip(Path(self.ann_file), most_bytes(os.path.getsize(self.ann_file)))
            with np.load(self.ann_file, allow_pickle=False) as file:
                return [file[name] for name in (f'{self.split}_images', f'{self.split}_labels', 'classes')]
        except Exception as error:  # zipfile, zlib and NumPy each have their own errors for a damaged file
            raise UserError(f'{self.ann_file} is damaged or no array file of images ({error}).') from error

    def _check(self, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
        shaped = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
        if not shaped or labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu' or not len(images):
            raise UserError(
                f'{self.ann_file} should hold {self.split}_images (N x H x W x 3, uint8) and {self.split}_labels '
                f'(N whole numbers), and has {images.shape} {images.dtype} and {labels.shape} {labels.dtype}.'
            )
        if labels.min() < 0 or labels.max() >= classes:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise UserError(f'{self.ann_file} has the label {wrong}, outside 0 to {classes - 1}.')
