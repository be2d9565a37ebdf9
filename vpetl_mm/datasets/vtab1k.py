"""VTAB-1k: 19 tasks of 800 training and 200 validation images and a full test set, by the lists of each folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mmpretrain.datasets import BaseDataset

from ..errors import UserError
from .holdout import check_split
from .list_file import read_list

LISTS = dict(train='train800', val='val200', test='test')
SHARE = 0.2  # of val200 in the 1,000 images for training


class Task(NamedTuple):
    """A task's group, number of classes and number of test images."""

    group: str
    classes: int
    test: int


TASKS = {
    'cifar': Task('natural', 100, 10_000),
    'caltech101': Task('natural', 102, 6_084),
    'dtd': Task('natural', 47, 1_880),
    'oxford_flowers102': Task('natural', 102, 6_149),
    'svhn': Task('natural', 10, 26_032),
    'sun397': Task('natural', 397, 21_750),
    'oxford_iiit_pet': Task('natural', 37, 3_669),
    'patch_camelyon': Task('specialized', 2, 32_768),
    'eurosat': Task('specialized', 10, 5_400),
    'resisc45': Task('specialized', 45, 6_300),
    'diabetic_retinopathy': Task('specialized', 5, 42_670),
    'clevr_count': Task('structured', 8, 15_000),
    'clevr_dist': Task('structured', 6, 15_000),
    'dmlab': Task('structured', 6, 22_735),
    'kitti': Task('structured', 4, 711),
    'dsprites_loc': Task('structured', 16, 73_728),
    'dsprites_ori': Task('structured', 16, 73_728),
    'smallnorb_azi': Task('structured', 18, 12_150),
    'smallnorb_ele': Task('structured', 9, 12_150),
}


def token(task: str) -> str:
    """Return a task's token in config names: ``'vtabiiitpet'`` for ``'oxford_iiit_pet'``."""
    return 'vtab' + task.removeprefix('oxford_').replace('_', '')


TOKENS = {token(task): task for task in TASKS}


class VTAB1k(BaseDataset):
    """One task of VTAB-1k, ``dict(img_path=str, gt_label=int)`` each.

    Args:
        data_root: the task's folder, with ``train800.txt``, ``val200.txt`` and ``test.txt``, lists of
            ``images/train800/000000.jpg 12`` lines; the paths are relative to this folder.
        num_classes: labels must lie in [0, num_classes).
        split: ``'train'`` or ``'test'``. Defaults to 'train'.
        holdout: 0 takes both train800 and val200, for the final run; 0.2 holds out the official val200 and takes
            train800 alone. Defaults to 0.
        held_out: take val200. Defaults to False.
        holdout_seed: accepted as by other data sets; nothing is drawn here.
        kwargs: arguments of mmpretrain's BaseDataset (pipeline, indices).

    Raises:
        UserError: for another split or share, or a list that is missing or wrong.
    """

    def __init__(
        self,
        data_root: str,
        num_classes: int,
        split: str = 'train',
        holdout: float = 0.0,
        held_out: bool = False,
        holdout_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_split('VTAB-1k', split)
        if holdout not in (0, SHARE):
            raise UserError(f'holdout is {holdout!r}: it must be 0 or {SHARE}, as VTAB-1k holds out its val200.')
        if not isinstance(num_classes, int) or num_classes < 1:
            raise UserError(f'num_classes of VTAB-1k must be a whole number of at least 1, got {num_classes!r}.')
        self.num_classes = num_classes
        parts = ['test'] if split == 'test' else ['val'] if held_out else ['train'] if holdout else ['train', 'val']
        self.lists = [LISTS[part] for part in parts]
        kwargs.setdefault('classes', [str(label) for label in range(num_classes)])
        super().__init__(ann_file=f'{self.lists[0]}.txt', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the images of the lists, in their order."""
        samples = []
        for name in self.lists:
            file = Path(self.data_root, f'{name}.txt')
            if not file.is_file():
                raise UserError(f'{file} does not exist; tools/prepare_data.py vtab1k --src DIR makes it.')
            samples += read_list(file, self.num_classes)
        return [dict(img_path=str(Path(self.data_root, path)), gt_label=label) for path, label in samples]
