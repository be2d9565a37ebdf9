"""How many samples an experiment's data set has: by its list where that is there, else as published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.list_file import read_lines
from ..datasets.vtab1k import LISTS, TASKS
from ..preparation import cifar100, food101, hmdb51, ssv2, svhn

# by the folder in data/: samples to train on, and to test on. OFFICIAL has what the data sets' pages say
PUBLISHED = {
    module.__name__.rpartition('.')[2]: (module.OFFICIAL['trainval'], module.OFFICIAL['test'])
    for module in (ssv2, hmdb51, cifar100, svhn, food101)
}
PUBLISHED['cifar100n50'] = (50 * 100, 20 * 100)  # docs/real_transfer.md
VTAB_TRAIN = 1000  # of each task: "The Visual Task Adaptation Benchmark", section 2, arXiv:1910.04867


def samples_of(dataset: Mapping[str, Any], testing: bool = False) -> int | None:
    """Return the samples of a data set's config; None where it has no list and is not known.

    Args:
        dataset: of a loader's config; its data sets may be wrapped.
        testing: it is the test set. Defaults to False.
    """
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    root = Path(dataset.get('data_root') or '')
    if dataset.get('type') == 'VTAB1k' and root.name in TASKS:
        parts = ('test',) if testing else ('train', 'val')
        files = [root / f'{LISTS[part]}.txt' for part in parts]
        return _listed(files) or (TASKS[root.name].test if testing else VTAB_TRAIN)
    file = Path(dataset.get('ann_file') or root)
    if file.suffix == '.txt' and (listed := _listed([root / file])):
        return listed
    known = [PUBLISHED[part] for part in file.parts if part in PUBLISHED]
    return known[-1][testing] if known else None


def _listed(files: list[Path]) -> int:
    """Return the samples in lists; 0 where one is missing."""
    if not all(file.is_file() for file in files):
        return 0
    return sum(sum(map(bool, read_lines(file))) for file in files)
