"""One experiment, from a config to a trained model and its scores; called by the tools and the demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.hooks import Hook

from ..config import load_config
from ..errors import UserError
from ..files import file_sha256
from .building import naming, with_own_types
from .checkpoint import Checkpoint
from .entries import at, check_entries, innermost
from .failures import told_plainly
from .feature_cache import views_of
from .hooks.feature_cache_hook import FeatureCacheHook
from .initial import initial_state
from .launch import available_cores, start_process_group
from .merged import check_plain, make_plain, write_merged
from .outcome import leave_record
from .preflight import check_experiment, check_writable
from .record import json_safe
from .resume import resumed, with_settings
from .run_folder import check_folder, check_links, locked
from .runner import PETLRunner
from .schedules import unfinished


@dataclass
class Options:
    """The options of a command line, besides the config."""

    work_dir: str | None = None  # work_dirs/<config name>
    resume: str | None = None  # 'auto' for the run's last full state, or a path; None starts a new run
    amp: bool = False  # mixed precision in bfloat16
    launcher: str = 'none'  # or 'pytorch' (torchrun), 'slurm'
    cfg_options: dict[str, Any] | None = None  # dotted keys to override
    resume_with: str | None = None  # 'old' or 'new' settings, if those of the run to resume differ
    overwrite: bool = False  # remove an older run's files from the work dir
    init_from: str | None = None  # the file of trained weights that a new run starts from


def prepare(config: str | Path | Config, options: Options) -> Config:
    """Return the config as it will run, options merged in.

    Raises:
        UserError: for a config that cannot be an experiment.
    """
    cfg = load_config(config, options.cfg_options)
    check_entries(cfg)
    name = Path(cfg.filename).stem if cfg.filename else cfg.get('experiment_name', 'experiment')
    cfg.work_dir = options.work_dir or cfg.get('work_dir') or str(Path('work_dirs', name))
    cfg.launcher = options.launcher
    if cfg.get('load_from'):
        raise UserError('load_from loads without checking; name pre-trained weights in model.base instead.')
    resume, overwrite = options.resume, options.overwrite
    requeued = options.launcher == 'slurm' and os.environ.get('SLURM_RESTART_COUNT', '0') != '0'
    if requeued and any(Path(cfg.work_dir).glob('epoch_*.pth')):
        resume, overwrite = 'auto', False  # Slurm repeats the command that started the job
    cfg.resume, cfg.load_from = resume is not None, None if resume == 'auto' else resume
    cfg.update({k: v for k, v in dict(resume_with=options.resume_with, overwrite=overwrite).items() if v})
    cfg.given_options = json_safe(options.cfg_options or {})  # the checkpoint and the result record them
    if options.init_from:
        _start_from(cfg, options)
    if options.amp:
        if cfg.optim_wrapper.type != 'AutocastOptimWrapper':
            cfg.optim_wrapper.type = cfg.given_options['optim_wrapper.type'] = 'AutocastOptimWrapper'
        cfg.optim_wrapper.any_cpu = True
    _apply_holdout(cfg)
    return cfg


def _start_from(cfg: Config, options: Options) -> None:
    """Record where a new run's weights are from; a run that Slurm repeats continues with its own."""
    if options.resume:
        raise UserError('--resume continues with the weights of the run itself: leave out --init-from.')
    if not Path(options.init_from).is_file():
        raise UserError(f'The file to start from, {options.init_from}, does not exist.')
    about = dict(file=Path(options.init_from).name, sha256=file_sha256(options.init_from))
    cfg.given_options.update({f'init_from.{key}': value for key, value in about.items()})


def _apply_holdout(cfg: Config) -> None:
    """Hold out ``holdout.fraction`` of the training list for validation; at 0 there is no validation.

    The figure reported is then the last epoch's; with a hold-out it may be that of the best epoch on it.
    """
    holdout = cfg.get('holdout')
    if holdout is None:
        return
    if holdout['fraction'] and not cfg.get('val_dataloader'):
        raise UserError('holdout.fraction needs a val_dataloader, which this config does not have.')
    if not holdout['fraction']:
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        return
    if not at(cfg, 'default_hooks.checkpoint'):
        raise UserError('holdout.fraction needs default_hooks.checkpoint, which keeps the best epoch.')
    for loader in ('train_dataloader', 'val_dataloader'):
        innermost(cfg[loader].dataset).update(holdout=holdout['fraction'], holdout_seed=holdout['seed'])
    cfg.default_hooks.checkpoint.save_best = 'acc/top1'


@told_plainly(resumes=True)
def train(cfg: Config, hooks: Sequence[Hook] = (), initial: Checkpoint | None = None) -> PETLRunner:
    """Train, and return the runner with its model and its scores.

    Args:
        cfg: the experiment, prepared.
        hooks: further hooks of the run.
        initial: trained weights that a new run starts from, of the same deltas on the same base; the head's rows
            are taken by the names of the classes. A resumed run ignores it.

    Raises:
        UserError: when an input is missing or wrong, the work dir is in use or holds another run, the run to
            resume has other settings, or ``initial`` does not fit; nothing is written then.
    """
    cfg, warnings = _checked(cfg)
    start, told = initial_state(cfg, initial) if initial and not cfg.get('resume') else (None, None)
    with locked(cfg) as warning:
        start_process_group(cfg)
        runner = runner_of(for_training(cfg), cfg.train_dataloader.num_workers, hooks)
        if start is not None:
            runner.start_from(initial.file, start)
            runner.logger.info(told)
        for text in [*warnings, *filter(None, [warning])]:
            runner.logger.warning(text)
        if cfg.get('cache_features'):
            runner.register_hook(FeatureCacheHook(views_of(cfg.cache_features) or 1))
        runner.train()
    return runner


def _checked(cfg: Config) -> tuple[Config, list[str]]:
    """Check everything about a training run; return the config that it starts or continues with, and warnings."""
    cfg, state, warnings = resumed(cfg)
    check_folder(cfg)
    cfg, question = with_settings(cfg, state['meta']) if state else (cfg, None)
    _check_place('predictions', at(cfg, 'val_evaluator.dump'), cfg)
    check_experiment(cfg, ('train_dataloader', 'val_dataloader'), cfg.get('load_from'), state)
    if question:
        raise UserError(question)
    return cfg, warnings + unfinished(cfg.get('param_scheduler'), cfg.train_cfg.max_epochs)


def for_training(cfg: Config) -> Config:
    """Return the config as it trains, whose copy in the work dir keeps the test, if it is whole.

    With accumulated gradients, each epoch ends with an optimizer step.
    """
    cfg = with_own_types(cfg)
    if not all(cfg.get(key) for key in ('test_dataloader', 'test_cfg', 'test_evaluator')):
        cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    if steps > 1 and cfg.train_dataloader.get('drop_last'):
        cfg.train_dataloader.pop('drop_last')
        cfg.train_dataloader.batch_sampler = dict(type='WholeStepsBatchSampler', steps=steps)
    return cfg


@told_plainly(resumes=False)
def test(
    cfg: Config,
    checkpoint: str | Path | Checkpoint,
    dump: str | None = None,
    hooks: Sequence[Hook] = (),
    merged: str | None = None,
) -> dict[str, float]:
    """Test a checkpoint on the test set: ``acc/top1``, ``acc/top5``, ``acc/mean_class`` in percent.

    Args:
        cfg: the experiment, prepared. Its work dir gets ``result.json``, a :class:`Record`, or another name if the
            test list is not the config's own.
        checkpoint: of the same experiment; its file, or its content.
        dump: a CSV file for the predictions.
        hooks: further hooks of the run.
        merged: a .safetensors file for the plain model of the host library, with deltas and the head's BatchNorm
            merged into the weights; this model is then the one that is tested.

    Raises:
        UserError: when an input is missing, the checkpoint belongs to another config or base, or the model cannot
            become a plain one for ``merged``.
    """
    checkpoint = Checkpoint.of(checkpoint)
    check_links(cfg)
    _check_place('predictions', dump, cfg)
    _check_place('merged model', merged, cfg)
    if merged and Path(merged).suffix != '.safetensors':
        raise UserError(f'The merged model is a file that ends in .safetensors, and {merged} does not.')
    if merged and Path(merged).exists():
        raise UserError(f'The merged model cannot be written to {merged}, which exists: give a new name.')
    model = check_experiment(cfg, ('test_dataloader',), checkpoint.file, checkpoint.content)
    if merged:
        check_plain(model)
    start_process_group(cfg)
    runner = runner_of(_for_testing(cfg, dump), cfg.test_dataloader.num_workers, hooks)
    runner.prepare_test(checkpoint)
    count = runner.plain_model.plan.count()
    if merged:
        make_plain(runner.plain_model)
    scores = runner.test()
    if runner.rank == 0:
        leave_record(runner, checkpoint.file, checkpoint.content['meta'], scores, count)
        if merged:
            write_merged(runner.plain_model, Path(merged), runner.cfg, checkpoint.file)
    return scores


def _for_testing(cfg: Config, dump: str | None) -> Config:
    """Return the config without training and validation, its predictions going to ``dump``."""
    cfg = with_own_types(cfg)
    cfg.load_from, cfg.resume = None, False
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_evaluator.dump = dump
    return cfg


def _check_place(what: str, file: str | None, cfg: Config) -> None:
    if file is None:
        return
    folder = Path(file).absolute().parent
    if Path(file).is_dir() or not (folder.is_dir() or folder == Path(cfg.work_dir).absolute()):
        raise UserError(f'The {what} cannot be written to {file}: it is a folder, or its folder does not exist.')
    check_writable(f'{what} {file}', folder)


def runner_of(cfg: Config, workers: int, hooks: Sequence[Hook] = ()) -> PETLRunner:
    """Build the runner, with further hooks. On the CPU it leaves cores to the loader's workers."""
    if not torch.cuda.is_available():  # threads that outnumber the cores wait on each other
        torch.set_num_threads(max(1, min(torch.get_num_threads(), available_cores() - workers)))
    with naming(cfg, 'what the run is built from'):
        runner = PETLRunner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    return runner
