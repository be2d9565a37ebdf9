"""Checks of everything that a run needs, before anything is written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIMIZERS, DefaultScope
from torch import nn

from ..errors import UserError, did_you_mean
from ..models.build import build_model
from ..spt.tuning import check_spt
from ..weights.base import base_state, how_to_get
from .adapter import check_trained
from .building import naming, of_type, registered
from .compiled import check_compiled
from .entries import at, innermost
from .feature_cache import check_cache
from .loaders import check_loader
from .parts import check_parts

NEEDED = {
    'train_dataloader': (
        *('train_dataloader', 'train_dataloader.batch_size', 'train_cfg', 'train_cfg.max_epochs'),
        *('optim_wrapper', 'optim_wrapper.optimizer'),
    ),
    'test_dataloader': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}


def check_experiment(
    cfg: Config, loaders: tuple[str, ...], file: str | Path = '', checkpoint: dict[str, Any] | None = None
) -> nn.Module:
    """Check inputs, settings, weights, lists and optimizer of a run; return its model, on the meta device.

    Args:
        cfg: the experiment.
        loaders: the data loaders that the run uses, the indispensable one first.
        file: the checkpoint that it tests or continues, if any.
        checkpoint: its content.

    Raises:
        UserError: for the first thing that is wrong; all missing inputs come together.
    """
    for key in NEEDED[loaders[0]]:
        if not at(cfg, key):
            raise UserError(f'{cfg.filename or "The config"} has no {key}.')
    with naming(cfg, 'the data'):
        _check_inputs(cfg, loaders)
    training = loaders[0] == 'train_dataloader'
    model = _model(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        iterations = {key: check_loader(cfg, key, model) for key in loaders if cfg.get(key)}
        check_parts(cfg, _optim_wrapper(cfg, model) if training else None, iterations)
    if checkpoint is not None:
        check_trained(model, file, checkpoint)
        if training and 'ema_state_dict' in checkpoint and not of_type('EMAHook', cfg.get('custom_hooks')):
            raise UserError(
                f'{file} holds averages, but the config has no EMAHook; add the custom_hooks that made them.'
            )
    check_compiled(cfg)
    check_writable(f'work dir {cfg.work_dir}', Path(cfg.work_dir))
    return model


def _check_inputs(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise one :class:`UserError` that names the config, each missing path and how to get it."""
    missing = [*_base(cfg), *_spt(cfg), *(line for loader in loaders for line in missing_data(cfg, loader))]
    if missing:
        lines = '\n'.join(f'  - {m}' for m in dict.fromkeys(missing))
        raise UserError(f'{cfg.filename or "The config"} cannot run, its inputs are missing:\n{lines}')


def _base(cfg: Config) -> Iterator[str]:
    base = cfg.model.get('base')
    if base and base.get('file') and not Path(base['file']).is_file():
        how = how_to_get(base) if base.get('url') else _data_help(cfg, base['file'], how_to_get(base))
        yield f'pre-trained weights {base["file"]}: {how}'


def _spt(cfg: Config) -> Iterator[str]:
    spt = at(cfg, 'model.petl.spt')
    if spt is not None and not Path(file := check_spt(spt)['file']).is_file():
        yield f'SPT file {file}: create it with tools/sensitivity.py {cfg.filename or "CONFIG"}'


def missing_data(cfg: Config, loader: str) -> Iterator[str]:
    """Yield the folders and lists of a data loader that do not exist, each with how to get it."""
    dataset = innermost(at(cfg, f'{loader}.dataset') or {})
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
    """Return ``data_help``, which a config inherits with its data set, if it is about the folder of ``path``."""
    text, parts = cfg.get('data_help', ''), Path(path).parts
    folder = parts[1] if len(parts) > 1 and parts[0] == 'data' else None
    if folder in re.findall(r'\w+', text):
        return text
    return 'made by "make demo"' if folder == 'demo' else otherwise


def _model(cfg: Config) -> nn.Module:
    """Build the model on the meta device, and check that its pre-trained weights fit."""
    model = build_model(cfg, meta=True)
    if not hasattr(model, 'plan'):
        raise UserError(f'model.type must be PETLRecognizer3D or PETLImageClassifier, got {cfg.model.type}.')
    if model.base is not None:
        with model.plan.detached():
            state = base_state(model.backbone, model.base)
            if model.spt is not None:
                model.spt.check_base(state)
    return model


def _optim_wrapper(cfg: Config, model: nn.Module) -> OptimWrapper:
    """Check what only training uses, and build its optimizer."""
    named, modules = cfg.get('activation_checkpointing') or [], dict(model.named_modules())
    for name in [named] if isinstance(named, str) else named:
        if name not in modules:
            hint = did_you_mean(name, modules)
            raise UserError(f'activation_checkpointing names {name!r}, but the model has no such module.{hint}')
    if cfg.get('cache_features'):
        check_cache(cfg, model)
    registered('optim_wrapper.optimizer', OPTIMIZERS, cfg.optim_wrapper.optimizer)
    with naming(cfg, 'optim_wrapper'):
        return build_optim_wrapper(model, cfg.copy().optim_wrapper)


def check_writable(what: str, folder: Path) -> None:
    """Raise :class:`UserError` if no file can be created in a folder, or in the one where it would be created."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f'The {what} cannot be written: {there} is not writable ({error.strerror}).') from error
