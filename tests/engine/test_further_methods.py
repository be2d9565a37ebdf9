"""The demo's rows of further papers, each for three steps on real clips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from small_experiment import QUICK, prepared, write_config

from vpetl_mm import build_model
from vpetl_mm.commands.demo import FURTHER


@pytest.fixture(scope='module')
def batch(clips, tmp_path_factory) -> dict[str, Any]:
    """A batch of the demo's training clips."""
    root = tmp_path_factory.mktemp('batch')
    cfg = prepared(write_config(clips, root / 'small.py'), root / 'run', **QUICK)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))


@pytest.mark.parametrize('method', FURTHER)
def test_all_that_a_row_trains_learns_and_nothing_else(method, batch, clips, tmp_path):
    cfg = prepared(write_config(clips, tmp_path / 'small.py', method), tmp_path / 'run')
    model = build_model(cfg, init_weights=True).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = [model.train_step(dict(batch), optimizer)['loss'].item() for _ in range(3)]
    assert all(loss < 10 for loss in losses), losses
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert any('deltas' in name for name in moved)
