"""Images from a list, which mmpretrain reads without a word on what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset

from ..errors import UserError
from .holdout import Holdout
from .readable import ReadableImages


class PETLImageList(ReadableImages, Holdout, BaseDataset):
    """Images and labels from a text file of ``path label`` lines, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        ann_file: the list; names may contain spaces, the label is what follows the last one.
        classes: the class names, or a file with a name per line; labels must lie in [0, their number).
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset
            (data_root, data_prefix, pipeline).

    Raises:
        UserError: for a list that is missing or empty, a line without a label, a label outside the classes, or,
            when it is read, an image that cannot be decoded.
    """

    def __init__(self, ann_file: str, classes: str | list[str], **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.CLASSES)

    def load_data_list(self) -> list[dict]:
        """The listed images."""
        if not Path(self.ann_file).is_file():
            raise UserError(f'The annotation file {self.ann_file} does not exist.')
        lines = Path(self.ann_file).read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
        data = [self._parse(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
        if not data:
            raise UserError(f'The annotation file {self.ann_file} is empty.')
        return data

    def _parse(self, number: int, line: str) -> dict:
        path, _, label = line.rpartition(' ')
        where = f'{self.ann_file}, line {number}'
        if not path or not re.fullmatch('-?[0-9]+', label):
            raise UserError(f'{where} has no label: {line!r}; a line is "path label".')
        if not 0 <= int(label) < self.num_classes:
            raise UserError(f'{where}: label {label} is outside the classes 0 to {self.num_classes - 1}.')
        return dict(img_path=str(Path(self.img_prefix or '', path.strip())), gt_label=int(label))
