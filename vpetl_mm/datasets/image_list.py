"""Images from a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset

from .holdout import Holdout
from .list_file import read_list


class PETLImageList(Holdout, BaseDataset):
    """Images and labels from a text file of ``path label`` lines, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        ann_file: the list. Paths may contain spaces: the label is what follows the last one.
        classes: the class names, or a file with one name per line; labels must lie in [0, their number).
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's BaseDataset
            (data_root, data_prefix, pipeline).

    Raises:
        UserError: if the list is missing or empty, a line has no label, or a label lies outside the classes.
    """

    def __init__(self, ann_file: str, classes: str | list[str], **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.CLASSES)

    def load_data_list(self) -> list[dict]:
        """Return the listed images."""
        samples = read_list(self.ann_file, self.num_classes)
        return [dict(img_path=str(Path(self.img_prefix or '', path)), gt_label=label) for path, label in samples]
