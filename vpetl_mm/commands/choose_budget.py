"""Chooses among several budgets: trains with each on a part of the training list and compares them on the rest."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmengine import Config

from ..engine.experiment import Options, prepare, train
from ..engine.plain import plain_experiment
from ..engine.preflight import check_experiment
from ..engine.record import json_safe
from ..errors import UserError
from ..files import file_sha256, from_json, written_whole
from ..spt.allocation import write_allocation
from ..spt.budget import BUDGETS
from ..spt.tuning import MEASURED
from .allocate import AllocationRequest, allocate, measure_experiment, resolve

SHARE = 0.2
RECORD = 'held_out.json'


def choose_budget(cfg: Config, request: AllocationRequest) -> AllocationRequest:
    """Train with each budget and keep the one that is best on held-out training data, the smallest of ties.

    Sensitivity for these runs is also measured without the held-out part. A run of an identical request is not
    repeated.

    Returns:
        The request with only the best budget.

    Raises:
        UserError: for an experiment without ``petl.spt`` or ``holdout``, for one that cannot validate, and for a
            budget that is too small.
    """
    if not cfg.model.petl.get('spt'):
        raise UserError('Several budgets are compared by training with each, so the config needs petl.spt.')
    share = (cfg.get('holdout') or {}).get('fraction')
    if share is None:
        raise UserError('Several budgets are compared on held-out training data, so the config needs holdout.')
    folder = Path(request.out).parent / BUDGETS
    given = dict(request.cfg_options or {}, **{'holdout.fraction': share or SHARE})
    held, _ = resolve(replace(request, cfg_options=given, out=str(folder / 'none.safetensors')))
    check_experiment(plain_experiment(held), ('train_dataloader', 'val_dataloader'))  # before minutes of measuring
    files = {b: folder / str(b) / 'spt.safetensors' for b in sorted(request.budgets)}
    asked = {b: _asked(held, replace(request, budgets=(b,), cfg_options=given, force=False)) for b in files}
    scores = {b: _recorded(files[b], asked[b]) for b in files}
    if None in scores.values():
        print('measuring sensitivity without the held-out part', file=sys.stderr)
        measurement = measure_experiment(held, request)
        # all at once, so that a budget that is too small is reported before anything is trained
        allocations = {b: allocate(measurement, b, held, request) for b, score in scores.items() if score is None}
        del measurement  # frees the model
    for budget, file in files.items():
        if scores[budget] is None:
            write_allocation(file, allocations[budget])
            scores[budget] = _score(replace(request, budgets=(budget,)), given, file)
            with written_whole(file.with_name(RECORD)) as partial:
                partial.write_text(json.dumps(dict(of=asked[budget], top1=scores[budget])) + '\n', encoding='utf-8')
            for state in file.parent.glob('epoch_*.pth'):  # large, and never resumed
                state.unlink()
        print(f'budget {budget:>9,}: top-1 {scores[budget]:.2f} on held-out training data')
    best = max(scores, key=lambda b: (scores[b], -b))
    return replace(request, budgets=(best,))


def _score(request: AllocationRequest, given: dict, file: Path) -> float:
    """Train, and return top-1 on the held-out part after the last epoch."""
    spt = {name: getattr(request, name) for name in ('structured', 'rank', 'control', *MEASURED)}
    spt |= dict(file=str(file), budget=request.budgets[0])
    options = dict(given, **{f'model.petl.spt.{k}': v for k, v in spt.items()})
    cfg = prepare(request.config, Options(work_dir=str(file.parent), cfg_options=options, overwrite=True))
    cfg.experiment_name = f'{Path(request.config).stem}_{file.parent.name}_{time.monotonic_ns()}'
    return float(train(cfg).message_hub.get_scalar('val/acc/top1').current())


def _asked(cfg: Config, request: AllocationRequest) -> dict[str, Any]:
    """Return everything that a run's result depends on: request, config, lists and pre-trained file."""
    text = json.dumps(json_safe(cfg.to_dict()), sort_keys=True)
    dataset, base = cfg.train_dataloader.dataset, cfg.model.base
    files = [Path(dataset.get('data_root') or '', dataset.get('ann_file') or 'none')]
    lists = sorted(Path(dataset.data_root).glob('*.txt')) if dataset.get('data_root') else []
    files += [p for p in lists if not p.stem.startswith('test')]  # nothing here may read those
    files += [Path(base.file)] if base else []
    hashes = {str(f): file_sha256(f) for f in files if f.is_file()}
    return dict(json_safe(asdict(request)), config_sha256=hashlib.sha256(text.encode()).hexdigest(), files=hashes)


def _recorded(file: Path, of: dict) -> float | None:
    """Return top-1 of an earlier run of an identical request; None if there is none, or its record is damaged."""
    try:
        record = from_json(file.with_name(RECORD).read_text(encoding='utf-8'))
        return float(record['top1']) if record['of'] == of and file.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
