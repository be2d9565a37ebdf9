"""The estimate of memory against what autograd keeps of real tensors, and against arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config
from tiny import FAST, HOST, clip, config

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.measure.fake_step import fake_step
from vpetl_mm.measure.live_bytes import alive_after_forward
from vpetl_mm.measure.memory import Memory, estimate, memory_line

REPO = Path(__file__).parents[2]
PATT = dict(patt=dict(type='PATT', at='qkv', d_bottle=4))


@pytest.mark.parametrize('attention', [FAST, HOST], ids=['fused', 'host'])
@pytest.mark.parametrize(('deltas', 'train'), [(PATT, ('head',)), ({}, ('all',)), ({}, ('head',))])
def test_the_estimate_is_what_real_tensors_keep(attention, deltas, train):
    cfg = config(deltas, train, depths=(2, 2), attention=attention)
    model = build_model(cfg)
    alive_after_forward(model, clip(2))  # masks, biases and orders of tokens are made once for all
    real = alive_after_forward(model, clip(4)) - alive_after_forward(model, clip(2))
    _estimated(cfg, 2)  # which leaves no mask behind
    fake = _estimated(cfg, 4) - _estimated(cfg, 2)
    # a table that trains keeps a fused kernel from being used on the CPU, and the estimate is of a GPU
    if attention is FAST and train == ('all',):
        assert 0 < fake < real
    else:
        assert fake == pytest.approx(real, rel=0.05, abs=1024)


def _estimated(cfg: Config, batch: int) -> int:
    return fake_step(build_model(cfg, meta=True), tuple(clip(batch).shape), mixed=False).saved


def test_nothing_fake_is_left_behind():
    from mmaction.models.backbones.swin import compute_mask

    cfg, x = config(PATT, depths=(2,), seed=1), clip(2)
    expected = build_model(cfg).eval().backbone(x)
    fake_step(build_model(cfg, meta=True), tuple(x.shape), mixed=False)
    compute_mask.cache_clear()
    fake_step(build_model(cfg, meta=True), tuple(x.shape), mixed=False)
    assert build_model(cfg).eval().backbone(x).equal(expected)


def test_mixed_precision_keeps_less_and_a_larger_batch_more():
    def kept(batch: int, mixed: bool) -> int:
        model = build_model(config(PATT, depths=(2, 2)), meta=True)
        return fake_step(model, (batch, 3, 8, 32, 32), mixed).saved

    mixed, full, half = kept(8, True), kept(8, False), kept(4, True)
    assert 0.4 * full < mixed < 0.9 * full
    assert 1.6 * half < mixed <= 2 * half


def test_parameters_gradients_and_momentum_are_arithmetic():
    memory = estimate(REPO / 'configs/swin_bapat_ssv2_b128.py', batch=1)
    assert memory.gradients == memory.optimizer == 4 * 6_379_438 == 4 * memory.trained
    position_index = 24 * 392**2 * 8  # the buffers are it and the mean and standard deviation of the pixels
    assert memory.parameters == 4 * 94_018_422 + position_index + 6 * 4
    full = estimate(REPO / 'configs/vit_full_cifar100_mae.py', batch=2)
    probe = estimate(REPO / 'configs/vit_fc_cifar100_mae.py', batch=2)
    assert full.gradients == 4 * (85_798_656 + 76_900) and probe.gradients == 4 * 76_900
    assert probe.activations < 2**20 < full.activations, 'nothing is kept of a frozen backbone'


@pytest.mark.parametrize(('optimizer', 'states'), [('AdamW', 2), ('SGD', 0)])
def test_the_optimizers_state(optimizer, states):
    cfg = load_config(REPO / 'configs/vit_fc_cifar100_mae.py')
    cfg.optim_wrapper.optimizer = dict(type=optimizer, lr=0.1)
    memory = estimate(cfg, batch=2)
    assert memory.optimizer == states * memory.gradients == states * 4 * 76_900


def test_it_is_labelled_an_estimate():
    text = memory_line(Memory(7, 2**30, 2**29, 2**29, 2**31))
    assert text == 'estimate 4.0 GiB a GPU (parameters 1.00, gradients 0.50, optimizer 0.50, activations 2.00)'
