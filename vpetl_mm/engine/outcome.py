"""The files that a test leaves in its work dir, and their names."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from mmengine import Config

from ..config import load_config
from ..errors import UserError
from ..spt.choice import Settings
from .checkpoint import Checkpoint
from .record import FILE, Record, changed_options, dotted_items, json_safe, read_record, write_record
from .run_folder import RESULT, files_of_run
from .runner import PETLRunner

LIST = 'test_dataloader.dataset.ann_file'
NOT_IN_NAMES = r'[^\w-]'


def predictions_of(cfg: Config, checkpoint: str | Path | Checkpoint) -> str:
    """Return the CSV file for the predictions of a test, if the user names none."""
    return str(Path(cfg.work_dir, f'predictions{suffix(cfg, Checkpoint.of(checkpoint).content["meta"])}.csv'))


def result_of(cfg: Config, checkpoint: str | Path | Checkpoint) -> Path:
    """Return the file that :func:`leave_record` writes the result of a test to."""
    return Path(cfg.work_dir, f'result{suffix(cfg, Checkpoint.of(checkpoint).content["meta"])}.json')


def suffix(cfg: Config, meta: Mapping[str, Any]) -> str:
    """Return what a test's files have at the end of their names: nothing for the config's own test set.

    If the folder holds the result of another config, that one stays, and this config's name comes first.

    ``meta`` is the checkpoint's: its run may have been given another test set as its own.
    """
    if cfg.get('bundle'):
        return _suffix_of_bundle(cfg)
    given, run = dict(dotted_items(cfg.get('given_options', {}))), dict(dotted_items(meta.get('options', {})))
    other = {k: v for k, v in given.items() if k.startswith('test_') and run.get(k) != v}
    changed = {k: other[k] for k in changed_options(other)}
    if LIST in other and not _is_own_list(cfg):
        changed[LIST] = other[LIST]
    prefix, own = '', Path(cfg.filename or '').stem
    with suppress(UserError):  # there may be no readable result
        if own and read_record(Path(cfg.work_dir, FILE)).config != own:
            prefix = f'_{re.sub(NOT_IN_NAMES, "", own)}'
    return f'{prefix}_{_named(changed)}' if changed else prefix


def _named(options: Mapping[str, Any]) -> str:
    """Return a name of the test's list and its other options."""
    name = re.sub(NOT_IN_NAMES, '', Path(str(options.get(LIST, 'changed'))).stem)[:40]
    return f'{name}_{hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:6]}'


def _suffix_of_bundle(cfg: Config) -> str:
    """Return nothing in a folder that holds no run, and no result of another bundle or of another list."""
    given, there = json_safe(cfg.given_options), {p.name for p in files_of_run(Path(cfg.work_dir))}
    same = False
    with suppress(UserError):
        options = read_record(Path(cfg.work_dir, FILE)).options
        same = all(options.get(name) == value for name, value in given.items())
    mixed = any(not RESULT.fullmatch(name) for name in there) or (FILE in there and not same)
    return f'_{_named(given)}' if mixed else ''


def _is_own_list(cfg: Config) -> bool:
    """Return whether the test list of the command line is the config's own, in another place."""
    if not cfg.filename:
        return False
    own, given = load_config(cfg.filename).test_dataloader.dataset, cfg.test_dataloader.dataset
    one, two = (Path(d.get('data_root') or '', d.get('ann_file') or '') for d in (own, given))
    if one.is_file() and two.is_file():
        return one.read_bytes() == two.read_bytes()
    return one.name == two.name


def name_of(cfg: Config) -> str:
    """Return the experiment's name: that of its file, or the one it gives itself."""
    return Path(cfg.filename).stem if cfg.filename else cfg.get('experiment_name', '')


def leave_record(
    runner: PETLRunner, checkpoint: str | Path, meta: dict[str, Any], scores: dict[str, float], count: dict[str, Any]
) -> None:
    """Write the result of a test, with the ``meta`` of its checkpoint and the ``count`` of the model's parameters.

    Scores of another evaluator, without the three accuracies, leave no file.
    """
    names = ('top1', 'top5', 'mean_class')
    if not all(f'acc/{name}' in scores for name in names):
        return
    run, given = meta.get('options', {}), json_safe(runner.cfg.get('given_options', {}))
    of_test = {k: v for k, v in given.items() if k.startswith('test_')}
    machine = f'{os.cpu_count()} CPU cores'
    if torch.cuda.is_available():
        machine = f'{runner.world_size} x {torch.cuda.get_device_name()}'
    record = Record(
        config=name_of(runner.cfg) or runner.experiment_name,
        seed=meta.get('seed'),
        **{name: scores[f'acc/{name}'] for name in names},
        params=count['trainable'],
        total=count['total'],
        checkpoint=Path(checkpoint).name,
        epoch=meta.get('epoch', 0),
        samples=len(runner.test_dataloader.dataset),
        options={**given, **run, **of_test, **_rule_of(runner)},
        finished=datetime.now().astimezone().isoformat(timespec='seconds'),
        machine=machine,
        by=count['by'],
        trials=runner.cfg.get('trials', 0),
    )
    write_record(runner.work_dir, record, f'result{suffix(runner.cfg, meta)}.json')


def _rule_of(runner: PETLRunner) -> dict[str, Any]:
    """Return how the SPT file was chosen where it differs from the defaults, which is another experiment."""
    spt, defaults = runner.plain_model.spt, Settings()
    made = {} if spt is None else spt.allocation.made
    return {f'spt.{k}': made[k] for k in ('alpha', 'beta', 'rule') if k in made and made[k] != getattr(defaults, k)}
