"""What a search refuses before anything starts, in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from searching import LR, write_experiment

from tools import refused
from vpetl_mm import UserError, petl
from vpetl_mm.config import load_config
from vpetl_mm.search import settings
from vpetl_mm.search.checks import planned
from vpetl_mm.search.keys import check_key, check_keys, own_value
from vpetl_mm.search.spaces import DELTAS, RATE, default_space

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['--search', 'optim_wrapper.optimizer.learning=log(1e-3,1)'], "has no 'learning'; valid: amsgrad"),
        (['--search', 'model.petl.deltas.patt.d_bottel=[4,8]'], "Did you mean 'd_bottle'"),
        (['--search', 'model.petl.deltas.lora.rank=[4,8]'], "has no 'lora'; valid: adapter, patt"),
        (['--search', 'optim_wrapper.paramwise_cfg.groups.heads.lr_mult=log(1,10)'], "Did you mean 'head'"),
        (['--search', 'model.petl.deltas.patt=[4,8]'], 'name a setting inside it'),
        (['--search', 'holdout.fraction=[0.1,0.2]'], 'they share it'),
        (['--search', 'randomness.seed=[0,1]'], 'they share it'),
        (['--search', 'model.petl.deltas.patt.d_bottle=int(1,1000000000)', '--sampler', 'grid'], 'has 1,000,000,000'),
        (['--search', f'{LR}=log(1e-1,1e-3)'], 'is empty'),
        (['--search', f'{LR}=around 0.1'], 'cannot be read'),
        (['--search', LR], 'takes default and KEY=SPACE'),
        (['--search', f'{LR}=[1,2]', f'{LR}=[1,3]'], 'twice'),
        (['--search', f'{LR}=log(1e-3,1)', '--sampler', 'grid'], 'give a list'),
        (['--search', 'model.petl.deltas.patt.d_bottle=int(0,8)'], '=0 of the space int(0,8) is impossible'),
        (['--metric', 'acc/top3'], "Did you mean 'acc/top"),
        (['--trials', '0'], '--trials must be at least 1'),
        (['--trials', '10001'], '--trials must be at most 10,000'),
        (['--trials', '2', '--finalists', '3'], '--finalists must be at most 2'),
        (['--seeds', '1001'], '--seeds must be at most 1,000'),
        (['--jobs', '100000'], 'one a core'),
        (['--search', 'train_dataloader.batch_size=[4,1000]'], 'the training list has 24 samples'),
        (['--work-dir', __file__], 'is a file'),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(experiment, capsys, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, 'tune', experiment, *argv)


@pytest.mark.parametrize(
    ('extra', 'said'),
    [
        ("holdout = None\nval_dataloader['dataset']['ann_file'] = '{root}/target_test.txt'\n", 'on its test data'),
        ("val_dataloader['dataset']['ann_file'] = '{root}/../{name}/target_test.txt'\n", 'on its test data'),
        ("holdout = None\nval_dataloader['dataset']['ann_file'] = '{root}/reversed.txt'\n", 'on its test data'),
        ("holdout = None\nval_dataloader['dataset']['ann_file'] = '{root}/one.txt'\n", 'on its test data'),
        ('holdout = None\nval_dataloader = val_evaluator = val_cfg = None\n', 'validates on nothing'),
        ('search = None\n', 'has no search'),
        ("search = {{'optim_wrapper.optimizer.lr': 'log(0,1)'}}\n", 'must begin above 0'),
    ],
)
def test_a_config_that_cannot_decide_is_refused(experiment, capsys, tmp_path, monkeypatch, extra, said):
    monkeypatch.chdir(tmp_path)
    root = experiment.parent
    rows = (root / 'target_test.txt').read_text().splitlines()
    train = (root / 'target_train.txt').read_text().splitlines()
    (root / 'reversed.txt').write_text('\n'.join(reversed(rows)))
    (root / 'one.txt').write_text('\n'.join([*train, f'../{root.name}/{rows[0]}']))
    config = write_experiment(root, extra.format(root=root, name=root.name), 'refused')
    assert said in refused(capsys, 'tune', config)


def test_without_optuna_it_says_how_to_install(experiment, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, 'find_spec', lambda name: None)
    assert 'pip install' in refused(capsys, 'tune', experiment)


def test_a_validation_list_of_its_own_decides(experiment, tmp_path):
    root = experiment.parent
    rows = (root / 'target_train.txt').read_text().splitlines()
    (root / 'val.txt').write_text('\n'.join(rows[:6]))
    own = f"holdout = None\nval_dataloader['dataset'].update(ann_file='{root}/val.txt', held_out=False)\n"
    search, said = planned(write_experiment(root, own, 'own'), {LR: '[0.1,0.01]'}, metric='top5', work_dir=tmp_path)
    assert (search.fraction, search.metric, said) == (None, 'acc/top5', [])
    cfg = search.run(tmp_path / 'run', {LR: 0.01})
    assert cfg.val_dataloader.dataset.ann_file == f'{root}/val.txt' and 'holdout' not in cfg.val_dataloader.dataset


def test_every_delta_has_a_space_of_options_that_it_takes():
    assert {*DELTAS} == {delta.__name__ for delta in petl.DELTAS}
    cfg = load_config(REPO / 'configs/demo_bapat.py')
    for kind, options in DELTAS.items():
        cfg.model.petl.deltas = {'one': dict(type=kind)}
        spaces = default_space(cfg)
        assert {*spaces} == {RATE, *(f'model.petl.deltas.one.{option}' for option in options)}
        check_keys(cfg, spaces)


def test_the_default_space_of_shipped_configs():
    bapat = default_space(load_config(REPO / 'configs/swin_bapat_ssv2_b128.py'))
    assert str(bapat[RATE]) == 'log(0.01,1.0)' and 128 in bapat['model.petl.deltas.patt.d_bottle']
    demo = default_space(load_config(REPO / 'configs/demo_bapat.py'))
    assert str(demo['model.petl.deltas.patt.d_bottle']) == '[16,32,64,128,256]', "the config's own value as well"
    assert own_value(load_config(REPO / 'configs/demo_bapat.py'), 'model.petl.deltas.patt.act') == 'Tanh'
    assert [*default_space(load_config(REPO / 'configs/demo_fc.py'))] == [RATE]
    group = 'optim_wrapper.paramwise_cfg.groups.backbone.lr_mult'
    for name in ('full', 'sptlora'):
        cfg = load_config(REPO / f'configs/demo_{name}.py')
        assert [*default_space(cfg)] == [RATE, group]
        check_keys(cfg, default_space(cfg))


@pytest.mark.parametrize(
    'key',
    [
        'optim_wrapper.optimizer.weight_decay',
        'optim_wrapper.optimizer.betas',
        'optim_wrapper.accumulative_counts',
        'optim_wrapper.paramwise_cfg.groups.deltas.lr_mult',
        'optim_wrapper.paramwise_cfg.flat_decay_mult',
        'param_scheduler.0.begin',
        'param_scheduler.1.eta_min',
        'train_dataloader.batch_size',
        'train_cfg.max_epochs',
        'model.petl.train',
        'model.petl.deltas.patt.learn_scale',
        'model.backbone.drop_path_rate',
        'model.cls_head.dropout_ratio',
        'train_dataloader.dataset.pipeline.1.clip_len',
    ],
)
def test_a_key_that_its_owner_takes(key):
    check_key(load_config(REPO / 'configs/demo_bapat.py'), key)


def test_one_key_inside_another():
    with pytest.raises(UserError, match='lies inside'):
        check_keys(load_config(REPO / 'configs/demo_bapat.py'), {'model.petl.train': 0, 'model.petl.train.0': 0})


@pytest.mark.parametrize(
    'key',
    [
        *(
            f'train_dataloader.dataset.{name}'
            for name in ('ann_file', 'held_out', 'holdout', 'holdout_seed', 'indices')
        ),
        *(f'train_dataloader.dataset.{name}' for name in ('data_root', 'data_prefix.video', 'dataset.ann_file')),
        *('model.cls_head.num_classes', 'train_dataloader.dataset.pipeline.0.type'),
        *('train_dataloader.dataset', 'train_cfg.val_begin', 'holdout.seed', 'val_dataloader.batch_size'),
    ],
)
def test_what_is_trained_on_and_held_out_is_no_setting(key):
    with pytest.raises(UserError, match='they share it'):
        check_key(load_config(REPO / 'configs/demo_bapat.py'), key)


def test_the_configs_own_value_inside_a_list():
    cfg = load_config(REPO / 'configs/demo_full.py')
    assert own_value(cfg, 'param_scheduler.0.start_factor') == cfg.param_scheduler[0].start_factor
    assert own_value(cfg, 'param_scheduler.9.start_factor') is None
