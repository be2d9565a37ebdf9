"""Which of several budgets is best: each is trained on a part of the training list and compared on the rest."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

from mmengine import Config

from ..engine.experiment import Options, prepare, train
from ..errors import UserError
from .allocation import write_allocation
from .find import SHORT, Request, allocate, measured, prepared

SHARE = 0.2
BUDGETS = 'budgets'  # the folder of what is trained to compare


def choose_budget(cfg: Config, request: Request) -> tuple[Config, Request]:
    """Train with each budget, and keep the one that is best on held-out training data, the smallest of equals.

    Sensitivity for these runs is measured without the held-out part too. What was trained is not trained again.

    Args:
        cfg: the experiment, which trains on the whole list.
        request: with several budgets.

    Returns:
        ``cfg``, and the request with the one budget.

    Raises:
        UserError: for an experiment without ``petl.spt`` or ``holdout``, or that holds nothing out.
    """
    if not cfg.model.petl.get('spt'):
        raise UserError('Several budgets are compared by training with each: the config needs petl.spt.')
    share = (cfg.get('holdout') or {}).get('fraction')
    if share is None:
        raise UserError('Several budgets are compared on held-out training data: the config needs holdout.')
    folder = Path(request.out).parent / BUDGETS
    given = dict(request.cfg_options or {}, **{'holdout.fraction': share or SHARE})
    held, _ = prepared(replace(request, cfg_options=given, out=str(folder / 'none.safetensors')))
    result, scores = None, {}
    for budget in sorted(request.budgets):
        record = folder / str(budget) / 'held_out.json'
        if not record.is_file():
            result = result or measured(held, request)
            file = record.with_name('spt.safetensors')
            write_allocation(file, allocate(result, budget, held, request))
            _write(record, _score(replace(request, budgets=(budget,)), given, file))
        scores[budget] = json.loads(record.read_text())['top1']
        print(f'budget {budget:>9,}: top-1 {scores[budget]:.2f} on held-out training data')
    best = max(scores, key=lambda b: (scores[b], -b))
    return cfg, replace(request, budgets=(best,))


def _score(request: Request, given: dict, file: Path) -> float:
    """Top-1 on the held-out part after the last epoch."""
    spt = dict(
        file=str(file),
        structured=SHORT[request.structured],
        rank=request.rank,
        budget=request.budgets[0],
        control=request.control,
    )
    options = dict(given, **{f'model.petl.spt.{k}': v for k, v in spt.items()})
    cfg = prepare(request.config, Options(work_dir=str(file.parent), cfg_options=options))
    cfg.experiment_name = f'{Path(request.config).stem}_{file.parent.name}_{time.monotonic_ns()}'
    return float(train(cfg).message_hub.get_scalar('val/acc/top1').current())


def _write(file: Path, top1: float) -> None:
    partial = file.with_suffix('.partial')
    partial.write_text(json.dumps(dict(top1=top1)) + '\n', encoding='utf-8')
    os.replace(partial, file)
