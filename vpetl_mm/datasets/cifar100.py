"""mmpretrain's CIFAR-100 with a held-out part and errors that name the missing or damaged file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.datasets import CIFAR100
from mmpretrain.datasets.utils import check_md5

from ..errors import UserError
from .holdout import Holdout, check_split

HOMEPAGE = 'https://www.cs.toronto.edu/~kriz/cifar.html'


class PETLCIFAR100(Holdout, CIFAR100):
    """CIFAR-100 from its python version, ``dict(img=HWC uint8 RGB, gt_label=int)`` each; never downloaded.

    Args:
        data_root: the folder that holds ``cifar-100-python``; '' is the current one.
        split: ``'train'`` or ``'test'``. Defaults to 'train'.
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmpretrain's CIFAR100.

    Raises:
        UserError: for another split, or a file that is missing or not the official one.
    """

    num_classes = 100

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        split = check_split('CIFAR-100', split)
        super().__init__(data_root=data_root or '.', split=split, download=False, **kwargs)

    # mmpretrain calls this before it unpickles anything. A pickle can run any code, so only the md5 sums of the
    # official files make reading one safe: do not drop them.
    def _check_integrity(self) -> bool:
        folder = Path(self.data_prefix['root'], self.base_folder)
        how = f'unpack {self.filename} from {HOMEPAGE} in {folder.parent}.'
        for name, md5 in self.train_list + self.test_list:
            path = folder / name
            if not path.is_file():
                raise UserError(f'{path} does not exist; {how}')
            if not check_md5(str(path), md5):
                raise UserError(f'{path} is damaged or not the official file (its md5 differs); {how}')
        return True
