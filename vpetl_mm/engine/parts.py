"""The parts of a config that mmengine builds only once a run has begun, tried before anything is written."""

from __future__ import annotations

import copy
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATA_SAMPLERS,
    FUNCTIONS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    VISUALIZERS,
    Registry,
    root,
)
from mmengine.runner import Runner, get_priority
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import DataLoader, Dataset

from ..config import arguments_of
from ..errors import UserError, did_you_mean, unknown
from .accuracy import PETLAccuracy
from .entries import at
from .extras import with_own_types
from .failures import FULL
from .schedules import fitted

# what libraries raise at a wrong value in a config
WRONG = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError)
WRONG += (RuntimeError, TypeError, ValueError)
# of default_hooks, what mmengine leaves out where it is None
MAY_BE_NONE = [f'default_hooks.{name}' for name in ('timer', 'logger', 'checkpoint', 'sampler_seed', 'runtime_info')]
MAY_BE_NONE += ['default_hooks.param_scheduler']
# types of a default, what cannot replace it, and what can
KINDS = (
    ((int, float), (str, dict), 'a number'),
    ((bool,), (str, list, dict), 'True or False'),
    ((str,), (bool, int, float), 'text'),
)


@contextmanager
def naming(cfg: Config, part: str) -> Iterator[None]:
    """Turn what a library raises while it builds ``part`` of the config into a sentence that names both."""
    try:
        yield
    except UserError:
        raise
    except WRONG as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = re.sub(' Please check whether the value.*', '', ' '.join(str(error).split()))
        if ' ' not in reason:  # such as a KeyError's key
            reason = f'{type(error).__name__} {reason}'.strip()
        missing = re.match(r'[\'"]?(\S+) is not in the (?:\w+::)?(.+) registry', reason)
        if missing:
            reason = f'there is no {missing[2]} {missing[1]!r}{_near(*missing.groups())}'
        raise UserError(f'{cfg.filename or "The config"}: {part} is wrong: {reason[:400]}') from error


def _near(name: str, kind: str) -> str:
    """A hint at the name in the registries of that kind that is nearest."""
    roots = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    names = {n for r in roots for part in (r, *r.children.values()) for n in part.module_dict}
    return f'.{did_you_mean(name, names)}'


def data_loader(cfg: Config, key: str, dataset: Dataset) -> DataLoader:
    """The data loader at ``key`` as the run will build it, over ``dataset``; no worker starts.

    Raises:
        UserError: when it is wrong, or its epochs would never end.
    """
    loader = cfg.copy()[key]
    with naming(cfg, key):
        for name in ('sampler', 'batch_sampler'):
            if loader.get(name) is not None:
                _known(f'{key}.{name}', DATA_SAMPLERS, loader[name])
        for name in ('collate_fn', 'worker_init_fn'):
            kind = at(loader, f'{name}.type')
            if isinstance(kind, str) and FUNCTIONS.get(kind) is None:
                raise UserError(f'{key}.{name} is wrong: there is no function {kind!r}{_near(kind, "function")}')
        with _nearest(key, DataLoader):
            _check_types(key, DataLoader, loader)
            built = Runner.build_dataloader(dict(loader, dataset=dataset), seed=0)
    if isinstance(built.sampler, InfiniteSampler):
        raise UserError(f'{key}.sampler is an InfiniteSampler, whose epochs never end; use DefaultSampler.')
    return built


def check_parts(cfg: Config, optim_wrapper: OptimWrapper | None, iterations: Mapping[str, int]) -> None:
    """Build what the run will build: loops, evaluators, hooks, logs, schedules.

    Args:
        cfg: the experiment.
        optim_wrapper: of the training, whose rates the schedules change; None when the config is tested.
        iterations: of an epoch, by the keys of the data loaders that the run uses.

    Raises:
        UserError: for the first part that is wrong, with the nearest name where one is misspelt.
    """
    cfg = with_own_types(cfg)
    for kind in (key.removesuffix('_dataloader') for key in iterations):
        for part in (f'{kind}_cfg', f'{kind}_evaluator'):
            if kind != 'train' and not cfg.get(part):
                raise UserError(f'{kind}_dataloader needs {part}, which this config has not.')
        _named_right(cfg, f'{kind}_cfg', LOOPS)
        evaluator = cfg.get(f'{kind}_evaluator') or ()
        if isinstance(evaluator, Mapping):
            evaluator = evaluator.get('metrics', evaluator)
        metrics = [_built(cfg, what, METRICS, m) for what, m in _entries(f'{kind}_evaluator', evaluator)]
        if kind == 'val' and all(isinstance(m, PETLAccuracy) for m in metrics):
            _check_monitored(cfg, [name for m in metrics for name in m.names])
    hooks = [(f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items()]
    for what, hook in hooks + _entries('custom_hooks', cfg.get('custom_hooks') or ()):
        if hook is not None or what not in MAY_BE_NONE:
            _check_hook(cfg, what, hook)
    _check_logs(cfg)
    if optim_wrapper is not None:
        _check_steps(cfg, optim_wrapper, iterations['train_dataloader'])


def _check_monitored(cfg: Config, scores: list[str]) -> None:
    """What the best epoch and early stopping go by is among the scores."""
    best = at(cfg, 'default_hooks.checkpoint.save_best') or ()
    asked = {'default_hooks.checkpoint.save_best': [best] if isinstance(best, str) else best}
    for what, hook in _entries('custom_hooks', cfg.get('custom_hooks') or ()):
        if isinstance(hook, Mapping) and hook.get('type') == 'EarlyStoppingHook':
            asked[f'{what}.monitor'] = [hook.get('monitor')]
    for what, names in asked.items():
        for name in names:
            if name not in (*scores, 'auto'):
                raise unknown(what, name, scores)


def _check_hook(cfg: Config, what: str, hook: Any) -> None:
    plain = {k: v for k, v in hook.items() if k != 'priority'} if isinstance(hook, Mapping) else hook
    try:
        built = _built(cfg, what, HOOKS, plain)
    except UserError as error:
        if isinstance(error.__cause__, RuntimeError):
            return  # such as a VisualizationHook, which can only be built in a run
        raise
    if isinstance(built, CheckpointHook):  # which hands on what it does not know
        for name in set(built.args) - set(arguments_of(Runner.save_checkpoint)):
            raise unknown(f'key of {what}', name, arguments_of(CheckpointHook))
    with naming(cfg, f'{what}.priority'):
        get_priority(hook.get('priority', built.priority))


def _named_right(cfg: Config, key: str, registry: Registry) -> None:
    """A part that is only built with a runner, or that would stay: its class and the names of its arguments."""
    if cfg.get(key) and 'type' in cfg[key]:
        kind = _known(key, registry, cfg[key])
        arguments = {k: v for k, v in cfg[key].items() if k != 'type'}
        with naming(cfg, key), _nearest(key, kind):
            inspect.signature(kind).bind_partial(**arguments)
            _check_types(key, kind, arguments)
            calc_dynamic_intervals(1, arguments.get('dynamic_intervals'))


def _check_logs(cfg: Config) -> None:
    for what, backend in _entries('visualizer.vis_backends', at(cfg, 'visualizer.vis_backends') or ()):
        given = {} if 'save_dir' in backend else dict(save_dir=cfg.work_dir)  # where nothing is written yet
        _built(cfg, what, VISBACKENDS, backend, **given)
    _named_right(cfg, 'visualizer', VISUALIZERS)
    if cfg.get('log_processor') is not None:
        processor = cfg.log_processor
        processor = dict(dict(type='LogProcessor'), **processor) if isinstance(processor, Mapping) else processor
        _built(cfg, 'log_processor', LOG_PROCESSORS, processor)
    with naming(cfg, 'log_level'):
        logging.Handler().setLevel(cfg.get('log_level', 'INFO'))


def _check_steps(cfg: Config, optim_wrapper: OptimWrapper, iterations: int) -> None:
    """Clip a gradient, and take two steps of each schedule."""
    if optim_wrapper.clip_grad_kwargs:
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        with naming(cfg, 'optim_wrapper.clip_grad'), _nearest('optim_wrapper.clip_grad', optim_wrapper.clip_func):
            optim_wrapper.clip_func([parameter], **optim_wrapper.clip_grad_kwargs)
    with naming(cfg, 'param_scheduler'):
        schedulers = fitted(cfg.get('param_scheduler') or (), iterations, cfg.train_cfg.max_epochs)
    for what, scheduler in _entries('param_scheduler', schedulers):
        _built(cfg, what, PARAM_SCHEDULERS, scheduler, optimizer=optim_wrapper, epoch_length=iterations)
        at_once = dict(scheduler, begin=0)
        built = _built(cfg, what, PARAM_SCHEDULERS, at_once, optimizer=optim_wrapper, epoch_length=iterations)
        with naming(cfg, what), warnings.catch_warnings(action='ignore'):  # that no optimizer's step came before
            built.step()
            built.step()


def _entries(what: str, entries: Any) -> list[tuple[str, Any]]:
    """The entries of a config's list, or the one that stands alone, each with its name."""
    if isinstance(entries, Mapping):
        return [(what, entries)]
    if not isinstance(entries, (list, tuple)):
        raise UserError(f'{what} must be a list of dicts, got {entries!r}.')
    return [(f'{what}[{i}]', entry) for i, entry in enumerate(entries)]


def _built(cfg: Config, what: str, registry: Registry, entry: Any, **given: Any) -> Any:
    """What ``registry`` builds of an entry, where a class and its arguments are named right."""
    kind = _known(what, registry, entry)
    with naming(cfg, what), _nearest(what, kind):
        _check_types(what, kind, entry)
        return registry.build(copy.deepcopy(entry), default_args=given)


def _known(what: str, registry: Registry, entry: Any) -> Any:
    """The class that an entry names."""
    if not isinstance(entry, Mapping) or 'type' not in entry:
        raise UserError(f'{what} must be a dict with a type, got {str(entry)[:200]!r}.')
    kind = entry['type']
    with registry.switch_scope_and_registry(None) as scoped:
        found = scoped.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise UserError(f'{what} is wrong: there is no {registry.name} {kind!r}{_near(kind, registry.name)}')
    return found


@contextmanager
def _nearest(what: str, called: Any) -> Iterator[None]:
    """Where ``called`` does not take an argument, name those that it takes, and the nearest."""
    try:
        yield
    except TypeError as error:
        wrong = re.match(r"(?:(?:(\w+)\.)?\w+\(\) )?got an unexpected keyword argument '(\w+)'", str(error))
        classes = called.__mro__ if inspect.isclass(called) else ()
        if wrong is None or wrong[1] not in (None, *(c.__name__ for c in classes)):
            raise
        raise unknown(f'key of {what}', wrong[2], arguments_of(called)) from error


def _check_types(what: str, called: Any, entry: Mapping[str, Any]) -> None:
    """Numbers, switches and texts, by the defaults that they replace."""
    for name, default in arguments_of(called).items():
        for kind, wrong, said in KINDS:
            if type(default) in kind and isinstance(entry.get(name), wrong):
                raise UserError(f'{what}.{name} must be {said}, got {entry[name]!r}.')
