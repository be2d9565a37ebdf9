"""Data sets and transforms by their registered names, as configs name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

import vpetl_mm  # noqa: F401  registers them
from vpetl_mm.config import load_config

REPO = Path(__file__).parents[1]


def build(config: dict[str, Any], scope: str = 'mmpretrain') -> BaseDataset:
    """A data set."""
    with DefaultScope.overwrite_default_scope(scope):
        data = DATASETS.build(config)
    data.full_init()
    return data


def build_transform(config: dict[str, Any], scope: str = 'mmpretrain') -> Any:
    """A step of a pipeline."""
    with DefaultScope.overwrite_default_scope(scope):
        return TRANSFORMS.build(config)


def build_listed(folder: Path, lines: str | bytes, config: str, loader: str) -> BaseDataset:
    """The data set of a video config's loader over a list of videos in its folder."""
    (folder / 'list.txt').write_bytes(lines.encode() if isinstance(lines, str) else lines)
    cfg = load_config(REPO / f'configs/{config}.py')[loader].dataset
    cfg.update(ann_file=str(folder / 'list.txt'), data_prefix=dict(video=str(folder)), metainfo={})
    return build(cfg, 'mmaction')
