"""Averages of what is trained: against a plain loop, in every file, resumed, refused."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook
from small_experiment import QUICK, assert_same, content, held_out

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train


def averaging(**options) -> dict:
    return {'custom_hooks': [dict(type='EMAHook', **options)], **QUICK}


class Iterates(Hook):
    """Keeps what is trained after each step, in double precision."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        trained = [(n, p) for n, p in runner.plain_model.named_parameters() if p.requires_grad]
        self.steps.append({n: p.detach().double().clone() for n, p in trained})


def test_the_averages_are_those_of_a_plain_loop_and_of_what_is_trained_alone(ready, tmp_path):
    seen = Iterates()
    runner = train(ready(**averaging(momentum=0.3)), [seen])
    wanted = seen.steps[0]
    for step in seen.steps[1:]:
        wanted = {k: 0.7 * wanted[k] + 0.3 * value for k, value in step.items()}
    adapter, full = content(tmp_path / 'run/adapter_epoch_2.pth'), content(tmp_path / 'run/epoch_2.pth')
    assert len(seen.steps) == 12 and set(adapter) == {'meta', 'state_dict'}
    assert set(adapter['state_dict']) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(adapter['state_dict'][key].double(), value, atol=1e-6, rtol=1e-6)
        assert torch.equal(full['state_dict'][key], adapter['state_dict'][key]), key
        assert torch.equal(full['ema_state_dict'][f'module.{key}'].double(), seen.steps[-1][key]), key
    moved = [k for k in wanted if not torch.allclose(adapter['state_dict'][k].double(), seen.steps[-1][k], atol=1e-5)]
    assert len(moved) > len(wanted) / 2
    held = sum(v.numel() for k, v in full['ema_state_dict'].items() if k != 'steps')
    assert held == runner.plain_model.plan.count()['trainable'] == sum(v.numel() for v in wanted.values())
    # either file tests alike, with the hook and without
    for folder, options, name in (('with', averaging(), 'adapter_epoch_2.pth'), ('without', QUICK, 'epoch_2.pth')):
        run_test(ready(folder, **options), tmp_path / 'run' / name, str(tmp_path / f'{folder}.csv'))
    assert (tmp_path / 'with.csv').read_text() == (tmp_path / 'without.csv').read_text()


def test_what_is_validated_is_the_average_and_training_goes_on_from_the_weights(ready, tmp_path, clips):
    plain, averaged = Iterates(), Iterates()
    train(ready('plain', **held_out(clips)), [plain])
    train(ready('averaged', **held_out(clips) | averaging(momentum=0.05)), [averaged])
    for one, other in zip(plain.steps, averaged.steps, strict=True):
        assert_same(one, other)
    best = content(next((tmp_path / 'averaged').glob('best_*.pth')))
    epoch = content(tmp_path / f'averaged/epoch_{best["meta"]["epoch"]}.pth')
    assert 'ema_state_dict' not in best
    assert all(torch.equal(value, epoch['state_dict'][key]) for key, value in best['state_dict'].items())
    # the file, tested without the hook on the samples held out, has the accuracy that made it the best
    cfg = ready('averaged', **held_out(clips))
    cfg.test_dataloader = cfg.val_dataloader
    score = run_test(cfg, tmp_path / f'averaged/epoch_{best["meta"]["epoch"]}.pth')['acc/top1']
    assert score == pytest.approx(epoch['message_hub']['runtime_info']['best_score'])


def test_resuming_equals_never_having_stopped(ready, tmp_path):
    options = dict(ema_type='MomentumAnnealingEMA', gamma=5, begin_iter=3)  # depends on the number of steps so far
    train(ready('whole', **averaging(**options)))
    train(ready('halves', train_cfg__max_epochs=1, **averaging(**options)))
    train(ready('halves', resume='auto', resume_with='new', **averaging(**options)))
    for name in ('adapter_epoch_2.pth', 'epoch_2.pth'):
        one, other = content(tmp_path / 'whole' / name), content(tmp_path / 'halves' / name)
        for part in {'state_dict', 'ema_state_dict'} & set(one):
            assert_same(one[part], other[part])


@pytest.mark.parametrize(
    ('hooks', 'said'),
    [
        ([dict(momentum=1.5)], 'momentum must be in range'),
        ([dict(momentun=0.1)], 'momentun'),
        ([dict(ema_type='Median')], 'Median'),
        ([dict(begin_epoch=1, begin_iter=1)], 'should not be both set'),
        ([dict(begin_epoch=3)], 'would begin in epoch 3 of 2'),
        ([dict(update_buffers=True)], 'averages no buffers'),
        ([dict(interval=0)], 'interval must be a whole number of at least 1, got 0'),
        ([dict(interval=1.5)], 'interval must be .* got 1.5'),
        ([dict(device='nonsense')], 'nonsense'),
        ([{}, {}], '2 EMAHooks'),
    ],
)
def test_wrong_options_are_told_before_anything_is_written(ready, tmp_path, hooks, said):
    with pytest.raises(UserError, match=said):
        train(ready(custom_hooks=[dict(type='EMAHook', **hook) for hook in hooks]))
    assert not (tmp_path / 'run').exists()


def test_averages_are_neither_lost_nor_invented_by_resuming(ready, tmp_path, clips):
    train(ready('with', train_cfg__max_epochs=1, **averaging(momentum=0.1)))
    with pytest.raises(UserError, match=r'with/epoch_1\.pth holds averages, but the config has no EMAHook'):
        train(ready('with', resume='auto'))
    train(ready('without', train_cfg__max_epochs=1))
    train(ready('without', resume='auto', resume_with='new', **held_out(clips) | averaging(momentum=0.1)))
    log = ''.join(p.read_text() for p in (tmp_path / 'without').glob('*/*.log'))
    assert 'no averages; EMAHook starts them again' in log
    file = content(tmp_path / 'without/epoch_2.pth')
    assert file['ema_state_dict']['steps'] == 5  # 18 clips are left, in batches of 4
