"""Checks before the first trial: the keys, both ends of every space, the data that decides, and the metric."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import METRICS, DefaultScope
from torch import nn

from ..datasets.list_file import read_list
from ..engine.building import naming
from ..engine.entries import at, innermost
from ..engine.plain import plain_experiment
from ..engine.preflight import check_experiment
from ..errors import UserError, reason, unknown
from ..measure.count import trains_by_budget
from ..models.build import build_model
from .keys import check_keys
from .settings import WORK_DIR, Search, check_same, config_of, digest_of, need_optuna, spaces_of
from .space import Space, parse_spaces
from .spaces import default_space

SHARE = 0.2  # of the training list, held out where the config holds out nothing
MOST_POINTS = 10_000  # of a grid
DEFAULT = 'default'  # the space of the config's method
LISTS = ('.txt', '.csv')  # of samples, a line each
OTHERS = ('pipeline', 'test_mode', 'holdout', 'holdout_seed', 'held_out')  # that do not make another list


def planned(
    config: Path,
    given: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    metric: str = 'acc/top1',
    sampler: str = 'tpe',
    work_dir: str | Path = WORK_DIR,
    pruner: str = 'hyperband',
) -> tuple[Search, list[str]]:
    """Return a search whose every part has been checked, and what to tell of it. Nothing is written.

    Args:
        config: the experiment's file.
        given: dotted key -> space; the key ``'default'`` stands for the space of the config's method. If empty, the
            config's own ``search``.
        options: ``--cfg-options`` of every run. Defaults to None.
        metric: with the evaluator's prefix or without. Defaults to ``'acc/top1'``.
        sampler: one of :data:`~.settings.SAMPLERS`. Defaults to ``'tpe'``.
        work_dir: the folder of the searches. Defaults to ``work_dirs/tune``.
        pruner: one of :data:`~.settings.PRUNERS`. Defaults to ``'hyperband'``.

    Raises:
        UserError: for the first thing that is wrong.
    """
    need_optuna()
    if Path(work_dir).exists() and not Path(work_dir).is_dir():
        raise UserError(f'--work-dir {work_dir} is a file.')
    search = Search(str(config), str(Path(work_dir, Path(config).stem)), {}, dict(options or {}))
    cfg = config_of(search)
    spaces = _spaces(cfg, given)
    check_keys(cfg, spaces)
    if sampler == 'grid':
        _check_grid(spaces)
    fraction, said = _held_out(cfg)
    texts = {key: str(space) for key, space in spaces.items()}
    asked = dict(metric=metric, sampler=sampler, pruner=pruner, fraction=fraction, digest=digest_of(cfg))
    search = replace(search, spaces=texts, **asked)
    first = search.run(Path(search.folder, 'trial_000'), {})
    _check_list(first)
    search = replace(search, metric=_metric(first, metric))
    check_same(search)
    _check_ends(search, first)
    return search, said


def _spaces(cfg: Config, given: Mapping[str, Any]) -> dict[str, Space]:
    texts = dict(given) or spaces_of(cfg)
    if not texts:
        raise UserError(
            f'{cfg.filename} has no search: say what to search, such as --search default or --search '
            'optim_wrapper.optimizer.lr="log(1e-4,1e-1)".'
        )
    found = default_space(cfg) if texts.pop(DEFAULT, None) is not None else {}
    return found | parse_spaces(texts)


def _check_grid(spaces: Mapping[str, Space]) -> None:
    """Raise :class:`UserError` for a space of which not every value can be tried, and for too many of them."""
    if wide := [key for key, space in spaces.items() if space.kind not in ('list', 'int')]:
        raise UserError(f'--sampler grid tries every value, and {wide[0]}={spaces[wide[0]]} has no end: give a list.')
    if (points := prod(len(space.points()) for space in spaces.values())) > MOST_POINTS:
        raise UserError(
            f'--sampler grid tries every value, and the grid has {points:,}; at most {MOST_POINTS:,} fit.'
        )


def _held_out(cfg: Config) -> tuple[float | None, list[str]]:
    """Return the share of the training list that decides, and what to say of it."""
    holdout = cfg.get('holdout')
    if holdout is None:
        return None, []
    if holdout['fraction']:
        return holdout['fraction'], []
    said = f'{Path(cfg.filename).stem} holds out no training data: the search holds out {SHARE:.0%} of the list.'
    return SHARE, [said]


def _check_list(cfg: Config) -> None:
    """Raise :class:`UserError` where there is nothing to validate on, or it is the test data."""
    if not cfg.get('val_dataloader'):
        raise UserError(
            f'{cfg.filename} validates on nothing, so nothing could decide: give it holdout, or a val list.'
        )
    ours, test = (innermost(at(cfg, f'{k}_dataloader.dataset') or {}) for k in ('val', 'test'))
    if test and (_data_of(ours) == _data_of(test) or _samples_of(ours) & _samples_of(test)):
        raise UserError(
            f'{cfg.filename} validates on its test data, which must not decide: give it holdout, or a val list of '
            'its own.'
        )


def _samples_of(dataset: Mapping[str, Any]) -> set[str]:
    """Return the files that a data set's text list names; nothing for data sets without one."""
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or ''
    file = Path(root, dataset.get('ann_file') or '')
    if file.suffix not in LISTS or not file.is_file():
        return set()
    if isinstance(prefix, Mapping):
        prefix = next((folder for folder in prefix.values() if folder), '')
    try:
        samples = read_list(file, None, dataset.get('delimiter') or ' ')
    except UserError:  # a list of another form, which its data set reads
        return set()
    paths = [Path(root, prefix, sample.path) for sample in samples]
    folders = {folder: os.path.realpath(folder) for folder in {path.parent for path in paths}}
    return {os.path.join(folders[path.parent], path.name) for path in paths}


def _data_of(dataset: Mapping[str, Any]) -> Any:
    """Return what tells a data set's samples: its list, or else all its settings."""
    root = dataset.get('data_root') or ''
    if dataset.get('ann_file'):
        return Path(root, dataset['ann_file']).resolve(), dataset.get('split')
    return {key: str(value) for key, value in dataset.items() if key not in OTHERS}


def _metric(cfg: Config, metric: str) -> str:
    """Return a metric's full name.

    Raises:
        UserError: when the config's evaluator does not report it, with the nearest that it does.
    """
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, (list, tuple)) else [cfg.val_evaluator]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')), naming(cfg, 'val_evaluator'):
        built = [METRICS.build(evaluator) for evaluator in evaluators]
    known = [name for one in built for name in getattr(one, 'names', ())]
    if not all(hasattr(one, 'names') for one in built) or metric in known:
        return metric  # another evaluator's scores are known once it has run
    full = next((name for name in known if name.rpartition('/')[2] == metric), None)
    if full is None:
        raise unknown('metric', metric, known)
    return full


def _check_ends(search: Search, first: Config) -> None:
    """Check the config as it stands, then with every end of every space.

    Raises:
        UserError: naming the value that is impossible.
    """
    by_budget = trains_by_budget(first.model)
    if by_budget:  # what SPT tunes is known once it has been measured, in each run's folder
        first = plain_experiment(first)
    model = check_experiment(first, ('train_dataloader', 'val_dataloader'))
    listed = len(_samples_of(innermost(at(first, 'train_dataloader.dataset') or {})))
    for key, value in _ends(search):
        if key == 'train_dataloader.batch_size' and listed and isinstance(value, int) and value > listed:
            raise UserError(f'{key}={value} is impossible: the training list has {listed} samples.')
        try:
            cfg = search.run(Path(search.folder, 'trial_000'), {key: value})
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
                _check_end(cfg, key, model, by_budget)
        except UserError as error:
            raise UserError(f'{key}={value} of the space {search.spaces[key]} is impossible: {error}') from error


def _ends(search: Search) -> Iterator[tuple[str, Any]]:
    for key, space in search.parsed().items():
        yield from ((key, value) for value in space.values)


def _check_end(cfg: Config, key: str, model: nn.Module, by_budget: bool) -> None:
    if by_budget:
        plain_experiment(cfg)  # refuses a learning rate that no method could have
        return
    if key.startswith('model.'):
        model = build_model(cfg, meta=True)
    if key.startswith(('model.', 'optim_wrapper.')):
        try:
            build_optim_wrapper(model, cfg.copy().optim_wrapper)
        except (TypeError, ValueError) as error:
            raise UserError(f'{reason(error).rstrip(".")}.') from error
