"""Learning rates for epochs of any number of iterations, against the formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.registry import PARAM_SCHEDULERS

from vpetl_mm.engine.schedules import fitted, unfinished

SCHEDULES = Path(__file__).parents[2] / 'configs/_base_/schedules'


def rates(schedulers, length: int, epochs: int) -> list[float]:
    """The learning rate of each iteration, stepped as mmengine's ParamSchedulerHook does; 1.0 without a schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    given = dict(optimizer=optimizer, epoch_length=length)
    built = [PARAM_SCHEDULERS.build(dict(s), default_args=given) for s in schedulers]
    found = []
    for i in range(length * epochs):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or (i + 1) % length == 0:
                scheduler.step()
    return found


def by_formula(length: int, epochs: int, warm_up: float, period: float) -> list[float]:
    """From 1e-6 to 1 in the iterations of the warm-up, to 1 at once where it is a single one; then half a cosine."""
    first = int(warm_up * length)
    up = [1e-6 + (1 - 1e-6) * i / (first - 1) for i in range(first)] if first > 1 else [1.0] * first
    return up + [(1 + math.cos(math.pi * i / (period * length))) / 2 for i in range(length * epochs - first)]


@pytest.mark.parametrize('name', ['demo', 'transfer', 'video_70e', 'image_100e', 'vtab_100e'])
@pytest.mark.parametrize('length', [1, 2, 3, 5, 7, 10])
def test_the_recipes_are_right_for_any_number_of_iterations(name, length):
    cfg = Config.fromfile(SCHEDULES / f'{name}.py')
    epochs, (up, down) = cfg.train_cfg.max_epochs, cfg.param_scheduler
    got = rates(fitted(cfg.param_scheduler, length, epochs), length, epochs)
    assert got == pytest.approx(by_formula(length, epochs, up.end, down.T_max), abs=1e-9)


@pytest.mark.parametrize(('name', 'length'), [('transfer', 157), ('demo', 100), ('video_70e', 23)])
def test_where_nothing_has_to_be_fitted_mmengines_rates_stay_to_the_bit(name, length):
    cfg = Config.fromfile(SCHEDULES / f'{name}.py')
    epochs = cfg.train_cfg.max_epochs
    assert rates(fitted(cfg.param_scheduler, length, epochs), length, epochs) == rates(
        cfg.param_scheduler, length, epochs
    )


def in_iterations(kind: str, **options) -> dict:
    return dict(type=kind, by_epoch=True, convert_to_iter_based=True, **options)


@pytest.mark.parametrize(
    ('schedulers', 'expected'),
    [
        # 3 iterations an epoch, 2 epochs
        ([in_iterations('MultiStepLR', milestones=[0.5, 1.5], gamma=0.1)], [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ([in_iterations('StepLR', step_size=0.5, gamma=0.1)], [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ([in_iterations('ConstantLR', factor=0.5, end=0.4)], [1] * 6),
        ([in_iterations('ConstantLR', factor=0.5, end=1)], [0.5, 0.5, 1, 1, 1, 1]),
        ([in_iterations('LinearLR', start_factor=1e-6, end=0.1)], [1] * 6),
        ([in_iterations('CosineAnnealingLR', begin=9)], [1] * 6),
        (dict(type='LinearLR', start_factor=0.1, end=1), [1] * 6),
        ([], [1] * 6),
    ],
)
def test_fractions_of_epochs_are_met(schedulers, expected):
    assert rates(fitted(schedulers, 3, 2), 3, 2) == pytest.approx(expected)


@pytest.mark.parametrize(('epochs', 'warned'), [(1, True), (2, True), (3, False)])
def test_a_run_that_ends_within_its_warm_up_is_warned_of(epochs, warned):
    schedulers = [
        in_iterations('LinearLR', start_factor=0.01, end=2.5),
        in_iterations('CosineAnnealingLR', begin=2.5),
    ]
    assert [f'the run {epochs}:' in text for text in unfinished(schedulers, epochs)] == [True] * warned
    assert unfinished(schedulers[1], epochs) == unfinished(None, epochs) == []
