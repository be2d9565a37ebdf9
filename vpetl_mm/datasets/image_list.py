"""Images from a list, which mmpretrain reads without a word on what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset

from ..errors import UserError
from .holdout import Holdout


def listed_images(file: str | Path, folder: str | Path | None, num_classes: int) -> list[dict]:
    """What a list of ``path label`` lines holds, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        file: the list; names may contain spaces, the label is what follows the last one.
        folder: what relative paths are relative to; None is the current folder.
        num_classes: labels must lie in [0, num_classes).

    Raises:
        UserError: for a list that is missing or empty, a line without a label, or a label outside the classes.
    """
    if not Path(file).is_file():
        raise UserError(f'The annotation file {file} does not exist.')
    lines = Path(file).read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
    numbered = [(f'{file}, line {n}', line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f'The annotation file {file} is empty.')
    data = []
    for where, line in numbered:
        path, _, label = line.rpartition(' ')
        if not path or not re.fullmatch('-?[0-9]{1,9}', label):
            raise UserError(f'{where} has no label: {line!r}; a line is "path label".')
        if not 0 <= int(label) < num_classes:
            raise UserError(f'{where}: label {label} is outside the classes 0 to {num_classes - 1}.')
        data.append(dict(img_path=str(Path(folder or '', path.strip())), gt_label=int(label)))
    return data


class PETLImageList(Holdout, BaseDataset):
    """Images and labels from a text file of ``path label`` lines, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        ann_file: the list; names may contain spaces, the label is what follows the last one.
        classes: the class names, or a file with a name per line; labels must lie in [0, their number).
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset
            (data_root, data_prefix, pipeline).

    Raises:
        UserError: for a list that is missing or empty, a line without a label, or a label outside the classes.
    """

    def __init__(self, ann_file: str, classes: str | list[str], **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.CLASSES)

    def load_data_list(self) -> list[dict]:
        """The listed images."""
        return listed_images(self.ann_file, self.img_prefix, self.num_classes)
