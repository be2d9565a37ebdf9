"""mmpretrain's Food-101 with a held-out part and errors that name what is missing or damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmpretrain.datasets import Food101

from ..errors import UserError
from .holdout import Holdout, check_split
from .image_reader import UnreadableImage

HOMEPAGE = 'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/'


class PETLFood101(Holdout, Food101):
    """Food-101 in its official layout, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        data_root: the folder that holds ``images`` and ``meta``.
        split: ``'train'`` (75,750 images) or ``'test'`` (25,250). Defaults to 'train'.
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's Food101.

    Raises:
        UserError: for another split, a list that is missing or damaged, listed images that do not exist, or,
            when it is read, an image that cannot be decoded.
    """

    num_classes = 101

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        super().__init__(data_root=data_root, split=check_split('Food-101', split), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the listed images, ``dict(img_path=..., gt_label=...)`` each; all of them exist."""
        if not Path(self.ann_file).is_file():
            raise self._error(f'{self.ann_file} does not exist')
        try:
            data = super().load_data_list()
        except ValueError as error:
            raise self._error(f'{self.ann_file} is damaged, its lines should be "class/image" ({error})') from error
        if not data:
            raise self._error(f'{self.ann_file} is empty')
        # list each folder once: on a network drive that is far faster than one query per image
        folders = {os.path.dirname(d['img_path']) for d in data}
        there = {os.path.join(f, name) for f in folders if os.path.isdir(f) for name in os.listdir(f)}
        missing = [d['img_path'] for d in data if d['img_path'] not in there]
        if missing:
            raise self._error(
                f'{len(missing)} of the {len(data)} images of {self.ann_file} do not exist, such as {missing[0]}'
            )
        return data

    def prepare_data(self, idx: int) -> Any:
        """Return the sample after the pipeline."""
        try:
            return super().prepare_data(idx)
        except UnreadableImage as error:
            raise UnreadableImage(str(self._error(str(error).rstrip('.')))) from error

    def _error(self, problem: str) -> UserError:
        how = f'unpack food-101.tar.gz from {HOMEPAGE} and put its images/ and meta/ in {self.data_root or "."}'
        return UserError(f'{problem}; {how}.')
