"""The lists of an experiment: which samples there are, and whether their labels are the head's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from ...engine.building import naming
from ...engine.loaders import file_of
from ...engine.preflight import missing_data
from .verdict import NOTE, OK, WRONG, Verdict, some

SPLITS = ('train', 'val', 'test')


@dataclass
class Split:
    """The samples of one data loader.

    Args:
        name: ``'train'``, ``'val'`` or ``'test'``.
        dataset: with its pipeline.
        labels: of all samples.
        files: of all samples; None for an image that lies in memory.
        digests: hashes of the images that lie in memory, by the index of the sample.
    """

    name: str
    dataset: Dataset
    labels: list[int]
    files: list[str | None]
    digests: dict[int, str]

    @property
    def classes(self) -> Sequence[str] | None:
        """The names of the classes; None where the data set has none."""
        names = getattr(self.dataset, 'metainfo', {}).get('classes')
        return names if isinstance(names, (list, tuple)) else None


def open_splits(cfg: Config) -> tuple[list[Split], list[str]]:
    """Return the splits that an experiment has, and what is missing of its test data, which training does not read.

    Raises:
        UserError: where a list cannot be read.
    """
    there = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
    missing = [*missing_data(cfg, 'test_dataloader')] if 'test' in there else []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        return [_opened(cfg, name) for name in there if name != 'test' or not missing], missing


def _opened(cfg: Config, name: str) -> Split:
    key = f'{name}_dataloader'
    with naming(cfg, key):
        dataset = DATASETS.build(cfg.copy()[key].dataset)
        dataset.full_init()
        labels, files, digests = [], [], {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            labels.append(int(info.get('label', info.get('gt_label', 0))))
            files.append(file_of(info))
            if files[-1] is None and isinstance(info.get('img'), np.ndarray):
                digests[index] = _digest(info['img'])
    return Split(name, dataset, labels, files, digests)


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(f'{image.shape}'.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def check_labels(splits: Sequence[Split], classes: int, left_out: Mapping[str, Any]) -> Verdict:
    """Compare all labels with the classes of the head, and the names of the classes with each other.

    Args:
        splits: the lists.
        classes: how many the head has.
        left_out: the sentences about lines that the lists have left out, as their labels are outside the classes.
    """
    wrong = [told.rstrip('.') for told in left_out]
    for split in splits:
        wrong += _outside(split, classes)
    named = [split for split in splits if split.classes is not None]
    for split in named:
        if len(split.classes) != classes:
            wrong.append(f'{split.name} has {len(split.classes)} names of classes, and the head {classes} classes')
        elif split.classes != named[0].classes:
            wrong.append(f'{split.name} has other names of classes than {named[0].name}')
    if wrong:
        said = wrong[0] if len(wrong) == 1 else f'{len(wrong)} things do not fit the {classes} classes of the head'
        return Verdict('labels', WRONG, said, some(wrong if len(wrong) > 1 else []))
    counts = ', '.join(f'{len(split.labels):,} in {split.name}' for split in splits)
    said, empty = f'{counts}, all in the {classes} classes of the head', _without_samples(splits[0], classes)
    if empty:
        return Verdict(
            'labels', NOTE, f'{said}; {len(empty)} of them without a sample in {splits[0].name}', some(empty)
        )
    return Verdict('labels', OK, said)


def _outside(split: Split, classes: int) -> Iterator[str]:
    own = getattr(split.dataset, 'num_classes', None)
    if own not in (None, classes):
        yield f'{split.name} is a list of {own} classes, and the head has {classes}'
    outside = [index for index, label in enumerate(split.labels) if not 0 <= label < classes]
    if outside:
        where = split.files[outside[0]] or f'sample {outside[0]}'
        yield (
            f'{len(outside)} of {len(split.labels):,} labels in {split.name} are outside 0 to {classes - 1}, such as '
            f'{split.labels[outside[0]]} of {where}'
        )


def _without_samples(split: Split, classes: int) -> list[str]:
    there = Counter(split.labels)
    names = split.classes if split.classes is not None and len(split.classes) == classes else range(classes)
    return [
        f'{label} {name}' if name != label else f'{label}' for label, name in enumerate(names) if not there[label]
    ]
