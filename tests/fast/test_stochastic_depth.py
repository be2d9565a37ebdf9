"""Dropped paths that are not computed, against mmcv's, which multiply what was computed by zero."""

from __future__ import annotations

import pytest
import tiny
import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from vpetl_mm.models.stochastic_depth import add_branch

from vpetl_mm import build_model

BAPAT = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))


class Counting(nn.Linear):
    """A branch that notes how many samples it sees."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return super().forward(x).tanh()


def both(rate: float, batch: int, seed: int, train: bool = True) -> tuple[list[Tensor], list[Tensor], int]:
    """Output, gradients and next random number of mmcv's way and of ours; how many samples ours computed."""
    results, branch = [], Counting()
    drop_path = DropPath(rate).train(train)
    for ours in (False, True):
        branch.zero_grad()
        branch.seen.clear()
        x = torch.randn(batch, 3, 2, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        torch.manual_seed(seed)
        y = add_branch(x, branch, drop_path) if ours else x + drop_path(branch(x))
        after = torch.rand(1)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y.detach(), after, x.grad, *(p.grad for p in branch.parameters())])
    return *results, sum(branch.seen)


@pytest.mark.parametrize('batch', [1, 2, 7])
@pytest.mark.parametrize('rate', [0.0, 0.1, 0.5, 0.9, 0.999999])
def test_equals_mmcvs(rate, batch):
    for seed in range(8):
        theirs, ours, _ = both(rate, batch, seed)
        for expected, mine in zip(theirs, ours, strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_dropped_outside_training():
    theirs, ours, seen = both(0.9, 5, 0, train=False)
    assert seen == 5
    for expected, mine in zip(theirs, ours, strict=True):
        assert torch.equal(mine, expected)
    x = torch.randn(2, 4)
    assert torch.equal(add_branch(x, torch.neg, nn.Identity()), torch.zeros(2, 4))


def test_a_dropped_sample_is_not_computed():
    seen = [both(0.5, 10, seed)[2] for seed in range(60)]
    assert len(set(seen)) > 3 and max(seen) <= 10
    assert sum(seen) / 600 == pytest.approx(0.5, abs=0.09)  # 4.5 standard deviations


def test_the_expectation_is_that_of_the_whole():
    x, drop_path = torch.zeros(20_000, 1), DropPath(0.3)
    torch.manual_seed(0)
    assert add_branch(x, torch.ones_like, drop_path).mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize('batch', [1, 3])
def test_a_branch_that_all_drop_has_gradients_of_zero(batch):
    branch, x = Counting(), torch.randn(batch, 4).requires_grad_()
    y = add_branch(x, branch, DropPath(0.999999))
    assert torch.equal(y, x)
    y.sum().backward()
    assert branch.seen in ([], [0])
    assert torch.equal(x.grad, torch.ones(batch, 4))
    for parameter in branch.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


def test_a_branch_in_half_precision():
    """As under autocast: the stream stays what it is."""
    fc = nn.Linear(4, 4).bfloat16()
    torch.manual_seed(0)
    y = add_branch(torch.randn(6, 4), lambda x: fc(x.bfloat16()), DropPath(0.5))
    assert y.dtype == torch.float32
    y.sum().backward()
    assert fc.weight.grad.isfinite().all()


# In the backbone, of which everything is dropped

DELTAS = {
    'none': {},
    'bapat': BAPAT,
    'branched': dict(adapter=dict(type='AdaptMLP', d_bottle=2, source='residual', scale=0.5)),
    'concat': dict(patt=dict(type='PATT', d_bottle=2, mode='concat')),
    'prefix': dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=2)),
    'table': dict(patt=dict(type='PATT', d_bottle=2, source='tokens', num_tokens=32)),
    'lora': dict(lora=dict(type='LoRA', rank=2), more=dict(type='LoRA', at='fc1', rank=2)),
}


def backbone(deltas: dict, train: list[str], attention: dict | None, rate: float = 0.999999) -> nn.Module:
    config = tiny.config(deltas, train, depths=(2, 2), embed=8, attention=attention, drop_path_rate=0.5)
    model = tiny.randomised(build_model(config), std=0.2).train()
    dropping = [m for m in model.modules() if isinstance(m, DropPath)]
    assert len(dropping) == 3  # the first block's rate is 0
    for module in dropping:
        module.drop_prob = rate
    model.backbone.layers[0].blocks[0].drop_path = DropPath(rate).train()
    return model


@pytest.mark.parametrize('train', [['all'], ['head'], ['attn.rpb', 'norm1']], ids='+'.join)
@pytest.mark.parametrize('deltas', DELTAS.values(), ids=DELTAS.keys())
@pytest.mark.parametrize('batch', [1, 2])
def test_a_backbone_that_is_dropped_whole(deltas, train, batch):
    """Nothing is None that the optimizer or DistributedDataParallel waits for: all that trains has zeros."""
    model = backbone(deltas, train, tiny.FAST)
    x = tiny.clip(batch, (8, 32, 32)).requires_grad_()
    with model.recomputing():
        y = model.cls_head(model.backbone(x))
    y.sum().backward()
    inside = {n: p for n, p in model.named_parameters() if p.requires_grad and '.blocks.' in n}
    assert {n for n, p in inside.items() if p.grad is None} == set()
    # what adds to the stream outside drop-path is not dropped
    zero = {n: p for n, p in inside.items() if 'source' not in deltas.get('adapter', {}) or '.deltas.' not in n}
    assert not [n for n, p in zero.items() if p.grad.any()]


@pytest.mark.parametrize('deltas', [{}, BAPAT], ids=['none', 'bapat'])
@pytest.mark.parametrize('rate', [0.5, 0.8, 0.999999])
def test_the_optimizers_steps_are_those_of_the_hosts(rate, deltas):
    """Weight decay and momentum act on what was dropped as well."""
    states = []
    for attention in (tiny.HOST, tiny.FAST):
        model = backbone(deltas, ['all'], attention, rate)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.5, eps=1e-3)
        torch.manual_seed(0)
        for seed in range(3):
            optimizer.zero_grad()
            with model.recomputing():
                y = model.cls_head(model.backbone(tiny.clip(2, (8, 32, 32), seed)))
            y.square().sum().backward()
            optimizer.step()
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f'{n}: {m}')
