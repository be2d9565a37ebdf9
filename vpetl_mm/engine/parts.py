"""The parts of a config that mmengine builds only once a run has begun, built before anything is written."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine import Config, Registry
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, LOG_PROCESSORS, LOOPS, METRICS, PARAM_SCHEDULERS, VISBACKENDS, VISUALIZERS
from mmengine.runner import Runner, get_priority
from mmengine.runner.utils import calc_dynamic_intervals

from ..config import arguments_of
from ..errors import UserError, unknown
from .accuracy import PETLAccuracy
from .building import built, calling, entries_of, naming, of_type, registered, with_own_types
from .entries import at
from .schedules import fitted

# of default_hooks, what mmengine leaves out where it is None
MAY_BE_NONE = [f'default_hooks.{name}' for name in ('timer', 'logger', 'checkpoint', 'sampler_seed', 'runtime_info')]
MAY_BE_NONE += ['default_hooks.param_scheduler']


def check_parts(cfg: Config, optim_wrapper: OptimWrapper | None, iterations: Mapping[str, int]) -> None:
    """Build what the run will build: loops, evaluators, hooks, logs, and schedules where there is an optimizer.

    ``iterations`` are those of an epoch, by the keys of the data loaders that the run uses.

    Raises:
        UserError: for the first part that is wrong, with the nearest name if one is misspelt.
    """
    cfg = with_own_types(cfg)
    for kind in (key.removesuffix('_dataloader') for key in iterations):
        for part in (f'{kind}_cfg', f'{kind}_evaluator'):
            if kind != 'train' and not cfg.get(part):
                raise UserError(f'{kind}_dataloader needs {part}, which this config does not have.')
        _check_arguments(cfg, f'{kind}_cfg', LOOPS)
        _check_evaluator(cfg, kind)
    for part, hook in _hooks(cfg):
        if hook is not None or part not in MAY_BE_NONE:
            _check_hook(cfg, part, hook)
    _check_averages(cfg)
    _check_logs(cfg)
    if optim_wrapper is not None:
        _check_steps(cfg, optim_wrapper, iterations['train_dataloader'])


def _hooks(cfg: Config) -> Iterator[tuple[str, Any]]:
    for name, hook in (cfg.get('default_hooks') or {}).items():
        yield f'default_hooks.{name}', hook
    yield from entries_of('custom_hooks', cfg.get('custom_hooks') or ())


def _check_arguments(cfg: Config, part: str, registry: Registry) -> None:
    """Check the class and the arguments of a part that can only be built with a runner, or that would stay."""
    if cfg.get(part) and 'type' in cfg[part]:
        kind = registered(part, registry, cfg[part])
        arguments = {k: v for k, v in cfg[part].items() if k != 'type'}
        with calling(cfg, part, kind, arguments):
            inspect.signature(kind).bind_partial(**arguments)
            calc_dynamic_intervals(1, arguments.get('dynamic_intervals'))


def _check_evaluator(cfg: Config, kind: str) -> None:
    """Build the metrics; those of the validation must have the scores that hooks watch."""
    evaluator = cfg.get(f'{kind}_evaluator') or ()
    if isinstance(evaluator, Mapping):
        evaluator = evaluator.get('metrics', evaluator)
    metrics = [built(cfg, part, METRICS, m) for part, m in entries_of(f'{kind}_evaluator', evaluator)]
    if kind != 'val' or not all(isinstance(m, PETLAccuracy) for m in metrics):
        return
    best = at(cfg, 'default_hooks.checkpoint.save_best') or ()
    watched = {'default_hooks.checkpoint.save_best': [best] if isinstance(best, str) else best}
    for part, hook in _hooks(cfg):
        if isinstance(hook, Mapping) and hook.get('type') == 'EarlyStoppingHook':
            watched[f'{part}.monitor'] = [hook.get('monitor')]
    scores = [name for m in metrics for name in m.names]
    for part, names in watched.items():
        for name in names:
            if name not in (*scores, 'auto'):
                raise unknown(part, name, scores)


def _check_hook(cfg: Config, part: str, hook: Any) -> None:
    plain = {k: v for k, v in hook.items() if k != 'priority'} if isinstance(hook, Mapping) else hook
    with calling(cfg, part, registered(part, HOOKS, plain), plain):
        try:
            ready = HOOKS.build(plain)
        except RuntimeError:  # such as a VisualizationHook's, which can only be built in a run
            return
    if isinstance(ready, CheckpointHook):  # which passes on what it does not know
        for name in set(ready.args) - set(arguments_of(Runner.save_checkpoint)):
            raise unknown(f'key of {part}', name, arguments_of(CheckpointHook))
    with naming(cfg, f'{part}.priority'):
        get_priority(hook.get('priority', ready.priority))


def _check_averages(cfg: Config) -> None:
    hooks, last = of_type('EMAHook', cfg.get('custom_hooks')), at(cfg, 'train_cfg.max_epochs')
    if len(hooks) > 1:
        raise UserError(f'custom_hooks has {len(hooks)} EMAHooks, and a checkpoint holds averages of one: keep one.')
    for hook in hooks:
        if last is not None and hook.get('begin_epoch', 0) > last:
            raise UserError(f'EMAHook would begin in epoch {hook["begin_epoch"]} of {last}.')


def _check_logs(cfg: Config) -> None:
    backends = at(cfg, 'visualizer.vis_backends') or ()
    if of_type('WandbVisBackend', backends) and importlib.util.find_spec('wandb') is None:
        raise UserError('WandbVisBackend needs Weights & Biases, which is not installed: pip install wandb.')
    for part, backend in entries_of('visualizer.vis_backends', backends):
        given = {} if 'save_dir' in backend else dict(save_dir=cfg.work_dir)  # where nothing is written yet
        built(cfg, part, VISBACKENDS, backend, **given)
    _check_arguments(cfg, 'visualizer', VISUALIZERS)
    processor = cfg.get('log_processor')
    if processor is not None:
        processor = {'type': 'LogProcessor', **processor} if isinstance(processor, Mapping) else processor
        built(cfg, 'log_processor', LOG_PROCESSORS, processor)
    with naming(cfg, 'log_level'):
        logging.Handler().setLevel(cfg.get('log_level', 'INFO'))


def _check_steps(cfg: Config, optim_wrapper: OptimWrapper, iterations: int) -> None:
    """Clip a gradient, and take two steps of each schedule."""
    if optim_wrapper.clip_grad_kwargs:
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        with calling(cfg, 'optim_wrapper.clip_grad', optim_wrapper.clip_func, {}):
            optim_wrapper.clip_func([parameter], **optim_wrapper.clip_grad_kwargs)
    with naming(cfg, 'param_scheduler'):
        schedulers = fitted(cfg.get('param_scheduler') or (), iterations, cfg.train_cfg.max_epochs)
    given = dict(optimizer=optim_wrapper, epoch_length=iterations)
    for part, scheduler in entries_of('param_scheduler', schedulers):
        built(cfg, part, PARAM_SCHEDULERS, scheduler, **given)
        at_once = built(cfg, part, PARAM_SCHEDULERS, dict(scheduler, begin=0), **given)
        with naming(cfg, part), warnings.catch_warnings(action='ignore'):  # that no step of the optimizer came before
            at_once.step()
            at_once.step()
