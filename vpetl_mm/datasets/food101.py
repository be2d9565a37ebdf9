"""mmpretrain's Food-101, with a held-out part, that says what of it is missing or damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmpretrain.datasets import Food101

from ..errors import UserError, unknown
from .holdout import Holdout

HOMEPAGE = 'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/'
SPLITS = ('train', 'test')


class PETLFood101(Holdout, Food101):
    """Food-101 in its official layout, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        data_root: the folder that holds ``images`` and ``meta``.
        split: ``'train'`` (75,750 images) or ``'test'`` (25,250). Defaults to 'train'.
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's Food101.

    Raises:
        UserError: for another split, a list that is missing or damaged, listed images that do not exist, or,
            when it is read, one that cannot be decoded.
    """

    num_classes = 101

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in SPLITS:
            raise unknown('split of Food-101', split, SPLITS)
        super().__init__(data_root=data_root, split=split, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The listed images, ``dict(img_path=..., gt_label=...)`` each; all of them exist."""
        if not Path(self.ann_file).is_file():
            raise UserError(f'{self.ann_file} does not exist; {self._how()}.')
        try:
            data = super().load_data_list()
        except ValueError as error:
            raise UserError(
                f'{self.ann_file} is damaged, its lines should be "class/image" ({error}); {self._how()}.'
            ) from error
        if not data:
            raise UserError(f'{self.ann_file} is empty; {self._how()}.')
        self._check_images(data)
        return data

    def prepare_data(self, idx: int) -> Any:
        """The sample after the pipeline."""
        try:
            return super().prepare_data(idx)
        except UserError as error:  # an image that cannot be decoded
            raise UserError(f'{str(error).rstrip(".")}; {self._how()}.') from error

    def _check_images(self, data: list[dict]) -> None:
        # one listing for each class: on a network drive far faster than a question for each image
        folders = {os.path.dirname(d['img_path']) for d in data}
        there = {os.path.join(f, name) for f in folders if os.path.isdir(f) for name in os.listdir(f)}
        missing = [d['img_path'] for d in data if d['img_path'] not in there]
        if missing:
            raise UserError(
                f'{len(missing)} of the {len(data)} images of {self.ann_file} do not exist, {missing[0]} being the '
                f'first; {self._how()}.'
            )

    def _how(self) -> str:
        return f'unpack food-101.tar.gz from {HOMEPAGE} and put its images/ and meta/ in {self.data_root or "."}'
