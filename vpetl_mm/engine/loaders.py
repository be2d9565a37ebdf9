"""Data loaders, tried before a run: the list, its labels and batches, and one sample on its way to the model."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from typing import Any

import cv2
from mmengine import Config
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from ..petl.checks import at_least_one
from .building import calling, naming, nearest, registered
from .entries import at
from .launch import rank_and_world_size

# by the head: a sample's dimensions, which of them is colour, and its shape in words
WANTED = dict(cls_head=(5, 1, '(clips, 3, T, H, W)'), head=(3, 0, '(3, H, W)'))


class WrongLabel(UserError):
    """A label of a list that the head has no class for."""


def check_loader(cfg: Config, key: str, model: nn.Module) -> int:
    """Check a data loader and the list of its data set, read one sample, and return the iterations of an epoch.

    Raises:
        UserError: when it cannot be built, its epochs would never end, or the model cannot take what it loads.
    """
    training = key == 'train_dataloader'
    with naming(cfg, key):
        dataset = DATASETS.build(cfg.copy()[key].dataset)
        dataset.full_init()
        _check_classes(cfg, key, dataset, model.head_name)
        samples = math.ceil(len(dataset) / rank_and_world_size(cfg)[1])  # of this process
        if training:
            _check_batchnorm(cfg, samples, model)
        else:
            _check_views(cfg, key)
        first = [file_of(dataset.get_data_info(i)) for i in range(min(5, len(dataset)))]
    if all(f and not os.path.exists(f) for f in first):
        raise UserError(f'{key}: the listed files do not exist, {first[0]} being the first; see data_prefix.')
    batch = cfg[key].get('batch_size', 1) * (cfg.optim_wrapper.get('accumulative_counts', 1) if training else 1)
    if cfg[key].get('drop_last') and samples < batch:
        raise UserError(
            f'{key}: {samples} samples are fewer than a batch of {batch}, and drop_last leaves none; '
            f'set {key}.batch_size lower.'
        )
    loader = _build(cfg, key, dataset)
    cv2.setNumThreads(0)  # as in the run: threads of OpenCV would not outlive the fork of a worker
    with naming(cfg, f'{key}.dataset.pipeline'):
        sample = dataset[0]
    _check_sample(cfg, key, loader, sample, model)
    return len(loader)


def _check_classes(cfg: Config, key: str, dataset: Any, head: str) -> None:
    classes = cfg.model.get(head, {}).get('num_classes')
    listed = getattr(dataset, 'num_classes', None)
    if listed is not None and listed != classes:
        raise WrongLabel(f'model.{head}.num_classes is {classes} and {key}.dataset.num_classes {listed}.')
    for info in map(dataset.get_data_info, range(len(dataset))):
        label = info.get('label', info.get('gt_label', 0))
        if label >= classes:
            where = file_of(info) or 'an image'
            raise WrongLabel(f'{key}: label {label} of {where} is outside the {classes} classes of model.{head}.')


def file_of(info: dict[str, Any]) -> str | None:
    """Return a sample's file, under mmaction2's key or mmpretrain's; None for an array in memory."""
    return info.get('filename') or info.get('img_path')


def _check_batchnorm(cfg: Config, samples: int, model: nn.Module) -> None:
    """A BatchNorm cannot train on a single sample, such as one that is left over at the end of an epoch."""
    loader = cfg.train_dataloader
    if getattr(getattr(model, model.head_name), 'bn', None) is None:
        return
    if loader.batch_size < 2:
        raise UserError("The head's BatchNorm needs train_dataloader.batch_size of 2 or more (or head.bn=False).")
    if samples % loader.batch_size == 1 and not loader.get('drop_last') and not loader.get('batch_sampler'):
        raise UserError(
            f'train_dataloader: batches of {loader.batch_size} leave one of {samples} samples over, and the '
            'BatchNorm of the head needs two; set train_dataloader.drop_last=True or another batch_size.'
        )


def _check_views(cfg: Config, key: str) -> None:
    """mmaction2 tests a clip's views in parts for one clip at a time."""
    views, batch = (cfg.model.get('test_cfg') or {}).get('max_testing_views'), cfg[key].get('batch_size', 1)
    if views and at_least_one('model.test_cfg.max_testing_views', views) and batch != 1:
        raise UserError(f'model.test_cfg.max_testing_views needs {key}.batch_size=1, got {batch}.')


def _build(cfg: Config, key: str, dataset: Dataset) -> DataLoader:
    """Build the data loader as the run will, over ``dataset``; no worker starts."""
    loader = cfg.copy()[key]
    for name in ('sampler', 'batch_sampler'):
        if loader.get(name) is not None:
            registered(f'{key}.{name}', DATA_SAMPLERS, loader[name])
    for name in ('collate_fn', 'worker_init_fn'):
        kind = at(loader, f'{name}.type')
        if isinstance(kind, str) and FUNCTIONS.get(kind) is None:
            raise UserError(f'{key}.{name} is wrong: there is no function {kind!r}{nearest(kind, "function")}')
    with calling(cfg, key, DataLoader, loader):
        built = Runner.build_dataloader(dict(loader, dataset=dataset), seed=0)
    if isinstance(built.sampler, InfiniteSampler):
        raise UserError(f'{key}.sampler is an InfiniteSampler, whose epochs never end; use DefaultSampler.')
    return built


def _check_sample(cfg: Config, key: str, loader: DataLoader, sample: Any, model: nn.Module) -> None:
    """Check a sample's shape, then collate and normalise it."""
    part = f'{key}.dataset.pipeline'
    inputs = sample.get('inputs') if isinstance(sample, Mapping) else None
    if isinstance(inputs, Tensor):
        shape, (dimensions, colours, wanted) = tuple(inputs.shape), WANTED[model.head_name]
        if len(shape) != dimensions or shape[colours] != 3:
            raise UserError(f'{part} returns inputs of shape {shape}, and the model takes {wanted}.')
        if key == 'train_dataloader' and colours == 1 and shape[0] != 1:
            raise UserError(f'{part} returns {shape[0]} clips per video, and training takes one: set num_clips=1.')
    with naming(cfg, f'{key}.collate_fn'):
        batch = loader.collate_fn([sample])
    with naming(cfg, f'model.data_preprocessor, or {key}.collate_fn,'):
        # on the meta device it has no values; only its shapes matter here
        copy.deepcopy(model.data_preprocessor).to_empty(device='cpu')(batch)
    if isinstance(inputs, Tensor) and hasattr(model.backbone, 'check'):  # a model of another library
        model.backbone.check((1, *shape[colours:]))
