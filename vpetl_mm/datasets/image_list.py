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
        listed = read_list(self.ann_file, self.num_classes)
        return [dict(img_path=str(Path(self.img_prefix or '', path)), gt_label=label) for path, label in listed]
