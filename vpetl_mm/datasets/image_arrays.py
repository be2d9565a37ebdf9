"""Small images and their labels from one NumPy archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from ..bounds import check_zip, most_bytes
from ..errors import UserError
from .holdout import Holdout, check_split


class ImageArrays(Holdout, BaseDataset):
    """Images held in an ``.npz`` file, ``dict(img=[H, W, 3] uint8 RGB, gt_label=int)`` each.

    Args:
        ann_file: the archive, with ``train_images`` and ``test_images`` [N, H, W, 3] (uint8, RGB),
            ``train_labels`` and ``test_labels`` [N] (whole numbers from 0), and ``classes``, their names.
        split: ``'train'`` or ``'test'``. Defaults to 'train'.
        per_class: take only the first so many images of each class, as few-shot training does. Defaults to None, all.
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset.

    Raises:
        UserError: for another split, or a file that is missing, damaged, or holds something else; for ``per_class``
            below 1, or above what a class has.
    """

    def __init__(self, ann_file: str, split: str = 'train', per_class: int | None = None, **kwargs: Any) -> None:
        self.split, self.per_class = check_split('an array file', split), per_class
        if per_class is not None and (type(per_class) is not int or per_class < 1):
            raise UserError(f'per_class must be a whole number of at least 1, got {per_class!r}.')
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the images and labels of the split, in the file's order."""
        images, labels, classes = self._read()
        self._check(images, labels, classes)
        if self.per_class is not None:
            first = self._first(labels, len(classes))
            images, labels = images[first], labels[first]
        self.num_classes = len(classes)
        self._metainfo.setdefault('classes', tuple(map(str, classes)))
        return [dict(img=image, gt_label=int(label)) for image, label in zip(images, labels, strict=True)]

    def _first(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Return the positions of the first ``per_class`` images of each class, ascending."""
        counts = np.bincount(labels, minlength=classes)
        least = int(counts.argmin())
        if counts[least] < self.per_class:
            raise UserError(
                f'per_class={self.per_class} of {self.ann_file}: class {least} has only {counts[least]} image(s) to '
                f'{self.split} on.'
            )
        return np.sort(np.concatenate([np.flatnonzero(labels == c)[: self.per_class] for c in range(classes)]))

    def _read(self) -> list[np.ndarray]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise UserError(f'The array file {path} does not exist.')
        try:
            check_zip(path, most_bytes(path.stat().st_size))
            with np.load(path, allow_pickle=False) as file:
                return [file[name] for name in (f'{self.split}_images', f'{self.split}_labels', 'classes')]
        except Exception as error:  # zipfile, zlib and NumPy each have their own errors for a damaged file
            raise UserError(f'{path} is damaged or not an array file of images ({error}).') from error

    def _check(self, images: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
        shaped = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
        if not shaped or labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu' or not images.size:
            raise UserError(
                f'{self.ann_file} should hold {self.split}_images (N x H x W x 3, uint8) and {self.split}_labels '
                f'(N whole numbers), and has {images.shape} {images.dtype} and {labels.shape} {labels.dtype}.'
            )
        if classes.ndim != 1:
            raise UserError(f'{self.ann_file} should hold classes, the name of each, and has {classes.shape}.')
        outside = labels[(labels < 0) | (labels >= len(classes))]
        if len(outside):
            raise UserError(f'{self.ann_file} has the label {outside[0]}, outside 0 to {len(classes) - 1}.')
