"""Head, deltas and tuned backbone weights train at learning rates of their own."""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from small_experiment import write_config
from test_spt import config_of

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.allocate import AllocationRequest, find_allocation, resolve
from vpetl_mm.config import load_config


def rates(config, paramwise: dict) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each trained parameter, by name; 0.1 and 0.01 before any factor."""
    cfg = load_config(config)
    model = build_model(cfg)
    cfg.optim_wrapper.update(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01))
    cfg.optim_wrapper.paramwise_cfg = paramwise
    names = {id(p): n for n, p in model.named_parameters()}
    built = build_optim_wrapper(model, cfg.optim_wrapper)
    found = {names[id(p)]: (g['lr'], g['weight_decay']) for g in built.optimizer.param_groups for p in g['params']}
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    return found


GROUPS = dict(head=dict(lr_mult=10.0), deltas=dict(decay_mult=0.0), backbone=dict(lr_mult=0.5))


def test_every_trained_parameter_has_the_rate_of_its_group(clips, tmp_path):
    extra = "model['petl'] = dict(train=['head', 'norm1'])\n"
    for name, (lr, decay) in rates(write_config(clips, tmp_path / 'a.py', extra=extra), dict(groups=GROUPS)).items():
        if name.startswith('cls_head.'):
            wanted = (1.0, 0.01)
        elif '.deltas.patt.' in name or '.deltas.adapter.' in name:
            wanted = (0.1, 0.0)
        else:
            assert '.norm1.' in name
            wanted = (0.05, 0.01)
        assert (lr, decay) == pytest.approx(wanted), name


def test_a_group_comes_on_top_of_mmengines_rules(clips, tmp_path):
    groups = {k: v for k, v in GROUPS.items() if k != 'backbone'}
    rules = dict(groups=groups, bias_lr_mult=2.0, custom_keys=dict(adapter=dict(lr_mult=3.0)))
    found = rates(write_config(clips, tmp_path / 'a.py'), rules)
    assert found['cls_head.fc_cls.bias'] == pytest.approx((2.0, 0.01))
    adapter = {lr for name, lr in found.items() if '.deltas.adapter.' in name}
    assert len(adapter) == 1 and adapter.pop() == pytest.approx((0.3, 0.0))


def test_what_spt_tunes_of_the_backbone_is_the_backbones(clips, tmp_path):
    config = config_of(clips, tmp_path / 'spt.py')
    find_allocation(*resolve(AllocationRequest(str(config), (700,), batches=2, batch_size=6)))
    found = rates(config, dict(groups=GROUPS))
    by = {mark: {lr for n, (lr, _) in found.items() if mark in n} for mark in ('.deltas.sparse.', '.deltas.spt.')}
    assert by == {'.deltas.sparse.': {0.05}, '.deltas.spt.': {0.1}}
    groups = dict(backbone=dict(lr_mult=0.5, decay_mult=0.5), entries=dict(lr_mult=3.0), vectors=dict(decay_mult=2.0))
    apart = rates(config, dict(groups=groups, flat_decay_mult=1.0))
    vectors = {n for n in apart if '.deltas.' not in n and not n.startswith('cls_head.')}
    assert vectors and {apart[n] for n in vectors} == {(0.05, 0.02)}, 'their own decay, and the rate of the backbone'
    entries = {(round(lr, 6), decay) for n, (lr, decay) in apart.items() if '.deltas.sparse.' in n}
    assert entries == {(0.3, 0.005)}, 'their own rate, and the decay of the backbone'


@pytest.mark.parametrize(
    ('groups', 'said'),
    [
        (dict(heads=dict(lr_mult=2.0)), "Did you mean 'head'"),
        (dict(head=dict(lr_mul=2.0)), "Did you mean 'lr_mult'"),
        (dict(head=dict(lr_mult=-1.0)), 'at least 0'),
        (dict(backbone=dict(lr_mult=2.0)), 'nothing of it is trained; trained are head, deltas'),
        (dict(entries=dict(lr_mult=2.0)), 'nothing of it is trained; trained are head, deltas'),
        (['head'], 'must be a dict'),
        (dict(head=10.0), r'groups\.head must be a dict such as dict\(lr_mult=10\.0\), got 10\.0'),
    ],
)
def test_a_wrong_group_is_refused(clips, tmp_path, groups, said):
    with pytest.raises(UserError, match=said):
        rates(write_config(clips, tmp_path / 'a.py'), dict(groups=groups))
