"""Resuming with other settings: what differs is said, and the old or the new ones hold as if they always had."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from ranks import over_ranks
from small_experiment import content, prepared, write_config

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.record import changed_options
from vpetl_mm.engine.settings import differing, parse_settings


def cosine(epochs: int) -> list[dict]:
    return [dict(type='CosineAnnealingLR', eta_min=0.0, T_max=epochs, end=epochs, convert_to_iter_based=True)]


LR = 7e-3
OPTIONS: dict[str, Any] = {
    'train_dataloader__num_workers': 0,
    'model__backbone__drop_path_rate': 0.0,
    'param_scheduler': cosine(2),
}


class Seen(Hook):
    """Notes the optimizer's groups before each step."""

    def __init__(self) -> None:
        self.lrs: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.decay, self.iter = groups[0]['weight_decay'], runner.iter
        self.lrs.append(groups[0]['lr'])


@pytest.fixture(scope='module')
def state(clips, tmp_path_factory) -> Path:
    """epoch_1.pth of two epochs of six steps, whose rate follows a cosine."""
    root = tmp_path_factory.mktemp('old')
    train(prepared(write_config(clips, root / 'small.py'), root / 'run', **OPTIONS))
    return root / 'run/epoch_1.pth'


@pytest.fixture
def go_on(state, ready, tmp_path):
    """Resumes a copy of the state, changed or not, with other options; the hook that looked on."""

    def start(resume_with: str | None = None, change=None, resume: str = 'auto', **options) -> Seen:
        (tmp_path / 'run').mkdir(exist_ok=True)
        shutil.copy(state, tmp_path / 'run/epoch_1.pth')
        if change:
            changed = content(state)
            change(changed)
            torch.save(changed, tmp_path / 'run/epoch_1.pth')
        seen = Seen()
        train(ready(resume=resume, resume_with=resume_with, **{**OPTIONS, **options}), [seen])
        return seen

    return start


def meta_of(file: Path) -> dict[str, Any]:
    return content(file)['meta']


OTHER = [
    (dict(train_cfg__max_epochs=4, param_scheduler=cosine(4)), 6, 4, LR, 'train_cfg.max_epochs: 2 -> 4'),
    (
        dict(optim_wrapper__optimizer__lr=1e-6, optim_wrapper__optimizer__weight_decay=0.1),
        6,
        2,
        1e-6,
        'optim_wrapper.optimizer.lr: 0.007 -> 1e-06',
    ),
    (dict(train_dataloader__batch_size=2), 12, 2, LR, 'train_dataloader.batch_size: 4 -> 2'),
]


@pytest.mark.parametrize(('options', 'steps', 'epochs', 'lr', 'said'), OTHER, ids=['longer', 'rate', 'batch'])
def test_new_settings_are_asked_for_and_then_hold_as_if_they_always_had(
    go_on, tmp_path, options, steps, epochs, lr, said
):
    with pytest.raises(UserError) as refused:
        go_on(**options)
    assert f'  - {said}\n' in str(refused.value) and '--resume-with old or --resume-with new' in str(refused.value)
    assert [p.name for p in (tmp_path / 'run').rglob('*')] == ['epoch_1.pth']
    seen = go_on('new', **options)
    whole = [lr * (1 + math.cos(math.pi * step / (steps * epochs))) / 2 for step in range(steps * epochs)]
    assert seen.lrs == pytest.approx(whole[steps:], rel=1e-9)
    assert seen.iter == steps * epochs - 1
    assert seen.decay == options.get('optim_wrapper__optimizer__weight_decay', 0.0)
    meta = meta_of(tmp_path / f'run/epoch_{epochs}.pth')
    assert meta['iter'] == steps * epochs
    told = {k: v for k, v in meta['options'].items() if k.startswith('after_epoch_1.')}
    assert set(options) - {'param_scheduler'} == {
        k.removeprefix('after_epoch_1.').replace('.', '__') for k in told if 'param_scheduler' not in k
    }
    assert changed_options(told) == [k for k in told if 'batch_size' not in k], 'the rate follows the batch'
    assert 'optim_wrapper.optimizer.lr' not in meta['options'], 'the first epoch had another'


def test_what_came_later_is_never_said_of_the_whole_run(go_on, tmp_path):
    """Resumed once more, with the options of the second command, that the state has had since epoch 1."""
    lr = 'optim_wrapper.optimizer.lr'

    def later(content):
        content['meta']['options'] = {f'after_epoch_1.{lr}': LR}

    go_on(change=later, optim_wrapper__optimizer__lr=LR)
    options = meta_of(tmp_path / 'run/epoch_2.pth')['options']
    assert f'after_epoch_1.{lr}' in options and lr not in options


def test_old_settings_are_taken(go_on, tmp_path):
    seen = go_on('old', optim_wrapper__optimizer__lr=1e-6, train_cfg__max_epochs=4, train_dataloader__batch_size=2)
    assert seen.lrs == pytest.approx([LR * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(6, 12)])
    meta = meta_of(tmp_path / 'run/epoch_2.pth')
    assert not {'optim_wrapper.optimizer.lr', 'train_cfg.max_epochs'} & set(meta['options'])
    assert '1e-06' not in meta['cfg']


def test_names_are_never_taken_out_of_a_file(go_on, tmp_path, monkeypatch):
    (tmp_path / 'evil.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)

    def change(content):
        content['meta']['cfg'] = content['meta']['cfg'].replace("type='AdamW'", "type='evil.AdamW'")
        content['meta']['cfg'] = content['meta']['cfg'].replace("source='norm'", "source='evil.norm'")
        content['meta']['cfg'] += "\ntrain_cfg = dict(type='evil.Loop', max_epochs=2)"

    with pytest.raises(UserError, match=r'takes only numbers .*\n.*type: .*Loop'):
        go_on('old', change)
    assert not (tmp_path / 'ran').exists()


def test_nothing_that_a_state_says_is_run(go_on, tmp_path):
    code = f'open({str(tmp_path / "ran")!r}, "w")'

    def mmengine_s(content):
        content['meta']['config'] = f'a = 1\n{code}\ngpu_ids = range(3)'

    def change(content):
        content['meta']['cfg'] = f'{code}\n' + content['meta']['cfg'] + f'\nx = {code}'
        content['message_hub']['runtime_info']['cfg'] = code

    with pytest.raises(UserError, match=r'meta\.config .* not part of a file of this project'):
        go_on(None, mmengine_s)
    go_on(None, change)
    assert (tmp_path / 'run/adapter_epoch_2.pth').is_file() and not (tmp_path / 'ran').exists()
    assert code not in meta_of(tmp_path / 'run/epoch_2.pth')['cfg']


def test_a_state_without_the_number_of_processes_goes_on(go_on, tmp_path):
    seen = go_on(None, lambda content: content['meta'].pop('processes'))
    assert len(seen.lrs) == 6 and meta_of(tmp_path / 'run/epoch_2.pth')['processes'] == 1


def test_other_processes_are_told_and_get_the_schedule_that_fits(state, ready, tmp_path):
    (tmp_path / 'run').mkdir()
    shutil.copy(state, tmp_path / 'run')

    def on(rank: int) -> list[float]:
        with pytest.raises(UserError, match='  - processes: 1 -> 2\n'):
            train(ready(resume='auto', launcher='pytorch', **OPTIONS))
        seen = Seen()
        train(ready(resume='auto', resume_with='new', launcher='pytorch', **OPTIONS), [seen])
        return seen.lrs

    rates = [LR * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(3, 6)]
    assert over_ranks(2, on) == [pytest.approx(rates)] * 2


def test_more_epochs_than_the_config_has(go_on):
    def change(content):
        content['meta'].update(epoch=3, iter=18)

    with pytest.raises(UserError, match=r'Nothing is left to train: .*epoch_1\.pth is from after epoch 3 of 2'):
        go_on(None, change)


def test_new_settings_do_not_mix_with_a_later_state(go_on, state, tmp_path):
    (tmp_path / 'run').mkdir()
    shutil.copy(state.with_name('epoch_2.pth'), tmp_path / 'run')
    with pytest.raises(UserError, match=r'epoch_2\.pth follows .*epoch_1\.pth.*another --work-dir'):
        go_on('new', resume=str(tmp_path / 'run/epoch_1.pth'), optim_wrapper__optimizer__lr=1e-6)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('model = dict(a=[1, -2.5, None], b=(True, "x"))',
         {('model', 'a'): [1, -2.5, None], ('model', 'b'): [True, 'x']}),
        ("model = {'1x': dict(a=inf), 'b': {}}", {('model', '1x', 'a'): 'inf', ('model', 'b'): {}}),
        ('model = [dict(type="m.A"), dict(type="B")]', {('model', 0, 'type'): 'A', ('model', 1, 'type'): 'B'}),
        ('model = f(1)\nother = 3\nx.y = 4\nimport os', {('model',): 'f(1)'}),
        ('train_dataloader = dict(num_workers=3, dataset=dict(ann_file="a/b.txt", data_root="r"))',
         {('train_dataloader', 'dataset', 'ann_file'): 'b.txt'}),
    ],
)  # fmt: skip
def test_config_text_is_data(text, value):
    assert parse_settings(text) == value


@pytest.mark.parametrize('text', ['model = ', 'model = ' + '-' * 100000 + '1', 'model = ' + '[' * 5000, 'a\0b'])
def test_what_is_no_config_text_is_a_sentence(text):
    with pytest.raises(UserError, match='its config cannot be read'):
        parse_settings(text)


def test_a_config_equals_its_own_text():
    cfg = Config(dict(model=dict(a={'x.y': 1e-6}, b=float('inf')), launcher='none', optim_wrapper=dict(lr=0.1)))
    assert differing(cfg, dict(cfg=cfg.pretty_text)) == {}
    assert differing(cfg, dict(cfg=cfg.pretty_text.replace('0.1', '0.2'))) == {('optim_wrapper', 'lr'): (0.2, 0.1)}
