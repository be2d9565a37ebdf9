"""What is missing or wrong with a run, told before anything is written."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
from mmengine import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, OPTIMIZERS, DefaultScope
from torch import nn

from ..errors import UserError, did_you_mean
from ..models.build import build_model
from ..petl.delta import at_least_one
from ..spt.tuning import check_spt
from ..weights.base import base_state, how_to_get
from .adapter import check_trained
from .compiled import check_compiled
from .entries import at, innermost
from .extras import check_extras
from .feature_cache import check_cache
from .first_batch import check_batch
from .launch import place
from .parts import check_parts, data_loader, naming

NEEDED = {
    'train_dataloader': (
        *('train_dataloader', 'train_dataloader.batch_size', 'train_cfg', 'train_cfg.max_epochs'),
        *('optim_wrapper', 'optim_wrapper.optimizer'),
    ),
    'test_dataloader': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}


def _base(cfg: Config) -> Iterator[str]:
    base = cfg.model.get('base')
    if base and base.get('file') and not Path(base['file']).is_file():
        how = how_to_get(base) if base.get('url') else _data_help(cfg, base['file'], how_to_get(base))
        yield f'pre-trained weights {base["file"]}: {how}'


def _spt(cfg: Config) -> Iterator[str]:
    petl = cfg.model.get('petl')
    if not isinstance(petl, Mapping) or petl.get('spt') is None:
        return
    spt = check_spt(petl['spt'])
    if not Path(spt['file']).is_file():
        yield f'SPT file {spt["file"]}: tools/sensitivity.py {cfg.filename or "CONFIG"} makes it'


def _data(cfg: Config, loader: str) -> Iterator[str]:
    if not cfg.get(loader):
        return
    dataset = innermost(cfg[loader].get('dataset', {}))
    root = Path(dataset.get('data_root') or '')
    if not root.is_dir():
        yield _missing(cfg, 'data folder', root)
        return
    if dataset.get('ann_file') and not (root / dataset['ann_file']).is_file():
        yield _missing(cfg, 'annotation list', root / dataset['ann_file'])
    prefix = dataset.get('data_prefix') or {}
    for kind, folder in (dict(image=prefix) if isinstance(prefix, str) else prefix).items():
        if folder and not (root / folder).is_dir():
            yield _missing(cfg, f'{kind} folder', root / folder)


def _missing(cfg: Config, what: str, path: Path) -> str:
    return f'{what} {path}: {_data_help(cfg, path, "see data/README.md")}'


def _data_help(cfg: Config, path: str | Path, otherwise: str) -> str:
    """``data_help``, which a config inherits with its data set, where it is about the folder that ``path`` is in."""
    text, parts = cfg.get('data_help', ''), Path(path).parts
    folder = parts[1] if len(parts) > 1 and parts[0] == 'data' else None
    if folder in re.findall(r'\w+', text):
        return text
    return 'made by "make demo"' if folder == 'demo' else otherwise


def check_inputs(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise one :class:`UserError` that names the config, each missing path and how to get it.

    Args:
        cfg: the experiment.
        loaders: the data loaders that the run uses, such as ``('train_dataloader',)``.
    """
    missing = [*_base(cfg), *_spt(cfg)]
    for loader in loaders:
        missing += [m for m in _data(cfg, loader) if m not in missing]
    if missing:
        lines = '\n'.join(f'  - {m}' for m in missing)
        raise UserError(f'{cfg.filename or "The config"} cannot run, its inputs are missing:\n{lines}')


def check_count(cfg: Config, model: nn.Module) -> None:
    """Raise :class:`UserError` when the model's trainable parameters are not the config's ``expect_params``."""
    expected, count = cfg.get('expect_params'), model.plan.count()['trainable']
    if expected is not None and expected != count:
        raise UserError(f'expect_params is {expected:,}, and the config trains {count:,} parameters.')


def check_experiment(cfg: Config, loaders: tuple[str, ...], checkpoint: str | Path | None = None) -> nn.Module:
    """Find what a run would stumble over, without writing a file: inputs, settings, weights, lists, optimizer.

    Args:
        cfg: the experiment.
        loaders: the data loaders that the run uses, the indispensable one first.
        checkpoint: what it tests or continues.

    Returns:
        The model, on the meta device.

    Raises:
        UserError: for the first thing that is wrong; all missing inputs come together.
    """
    for key in NEEDED[loaders[0]]:
        if not at(cfg, key):
            raise UserError(f'{cfg.filename or "The config"} has no {key}.')
    with naming(cfg, 'the data'):
        check_inputs(cfg, loaders)
    model = build_model(cfg, meta=True)
    if not hasattr(model, 'plan'):
        raise UserError(f'model.type must be PETLRecognizer3D or PETLImageClassifier, got {cfg.model.type}.')
    check_count(cfg, model)
    if model.base is not None:
        with model.plan.detached():
            state = base_state(model.backbone, model.base)
            if model.spt is not None:
                model.spt.check_base(state)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        iterations = {key: _check_list(cfg, key, model) for key in loaders if cfg.get(key)}
        training = loaders[0] == 'train_dataloader'
        check_parts(cfg, _check_training(cfg, model) if training else None, iterations)
    content = None if checkpoint is None else check_trained(model, checkpoint)
    check_compiled(cfg)
    check_extras(cfg, content if loaders[0] == 'train_dataloader' else None)
    check_writable(f'work dir {cfg.work_dir}', Path(cfg.work_dir))
    return model


def _check_training(cfg: Config, model: nn.Module) -> OptimWrapper:
    _check_checkpointing(cfg, model)
    if cfg.get('cache_features'):
        check_cache(cfg, model)
    optimizer = cfg.optim_wrapper.optimizer.get('type')
    if isinstance(optimizer, str) and OPTIMIZERS.get(optimizer) is None:
        raise UserError(
            f'optim_wrapper is wrong: there is no optimizer {optimizer!r}; torch.optim has SGD, AdamW, ...'
        )
    with naming(cfg, 'optim_wrapper'):
        return build_optim_wrapper(model, cfg.copy().optim_wrapper)


def _check_checkpointing(cfg: Config, model: nn.Module) -> None:
    named = cfg.get('activation_checkpointing') or []
    modules = dict(model.named_modules())
    for name in [named] if isinstance(named, str) else named:
        if name not in modules:
            hint = did_you_mean(name, modules)
            raise UserError(f'activation_checkpointing names {name!r}, and the model has no such module.{hint}')


def _check_batches(cfg: Config, samples: int, model: nn.Module) -> None:
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


def _check_views(cfg: Config, loader: str) -> None:
    """mmaction2 tests a clip's views in parts for one clip at a time."""
    views, batch = (cfg.model.get('test_cfg') or {}).get('max_testing_views'), cfg[loader].get('batch_size', 1)
    if views and at_least_one('model.test_cfg.max_testing_views', views) and batch != 1:
        raise UserError(f'model.test_cfg.max_testing_views needs {loader}.batch_size=1, got {batch}.')


def _check_list(cfg: Config, key: str, model: nn.Module) -> int:
    """Look at a data set's list, and read a sample; the iterations of its loader."""
    with naming(cfg, key):
        dataset = DATASETS.build(cfg.copy()[key].dataset)
        dataset.full_init()
        _check_classes(cfg, key, dataset, model.head_name)
        count = math.ceil(len(dataset) / place(cfg)[1])  # of this process
        if key == 'train_dataloader':
            _check_batches(cfg, count, model)
        else:
            _check_views(cfg, key)
        first = [_file_of(dataset.get_data_info(i)) for i in range(min(5, len(dataset)))]
    if all(f and not os.path.exists(f) for f in first):
        raise UserError(f'{key}: the listed files do not exist, {first[0]} being the first; see data_prefix.')
    steps = cfg.optim_wrapper.get('accumulative_counts', 1) if key == 'train_dataloader' else 1
    batch = cfg[key].get('batch_size', 1) * steps
    if cfg[key].get('drop_last') and count < batch:
        raise UserError(
            f'{key}: {count} samples are fewer than a batch of {batch}, and drop_last leaves none; '
            f'set {key}.batch_size lower.'
        )
    loader = data_loader(cfg, key, dataset)
    cv2.setNumThreads(0)  # as in the run: threads of OpenCV would not outlive the fork of a worker
    with naming(cfg, f'{key}.dataset.pipeline'):
        sample = dataset[0]
    check_batch(cfg, key, loader, sample, model)
    return len(loader)


def _file_of(info: dict[str, Any]) -> str | None:
    """A sample's file, under mmaction2's key or mmpretrain's; None for an array in memory."""
    return info.get('filename') or info.get('img_path')


def _check_classes(cfg: Config, loader: str, dataset: Any, head: str) -> None:
    classes = cfg.model.get(head, {}).get('num_classes')
    listed = getattr(dataset, 'num_classes', None)
    if listed is not None and listed != classes:
        raise UserError(f'model.{head}.num_classes is {classes} and {loader}.dataset.num_classes {listed}.')
    for info in map(dataset.get_data_info, range(len(dataset))):
        label = info.get('label', info.get('gt_label', 0))
        if label >= classes:
            where = _file_of(info) or 'an image'
            raise UserError(f'{loader}: label {label} of {where} is outside the {classes} classes of model.{head}.')


def check_writable(what: str, folder: Path) -> None:
    """Raise :class:`UserError` where a folder, or the one that it would be made in, takes no files."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f'The {what} cannot be written: {there} takes no files ({error.strerror}).') from error
