"""The image experiments from end to end: a ViT config of the tables, made small, on digits in SVHN's files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from small_experiment import REPO, assert_same, content

from vpetl_mm import UserError
from vpetl_mm.engine import experiment
from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.preflight import check_experiment
from vpetl_mm.engine.record import read_record


# behind a random backbone prompts have little to say, so that they need only train
@pytest.mark.parametrize(
    ('method', 'lr', 'at_least'),
    [
        ('full_svhn', 1e-3, 30),
        ('adaptformer_svhn_b64', 5e-3, 19),
        ('bapat_svhn_b32', 5e-3, 30),
        ('vpt_svhn', 5e-3, 0),
    ],
)
def test_a_vit_learns_digits_and_its_adapter_file_gives_the_same_figures(run, method, lr, at_least, tmp_path):
    cfg = run(method, optim_wrapper__optimizer__lr=lr)
    runner = train(cfg)
    adapter = Path(cfg.work_dir, 'adapter_epoch_4.pth')
    scores = experiment.test(run(method, 'test'), adapter, str(tmp_path / 'predictions.csv'))
    assert scores['acc/top1'] > at_least, 'chance is 10'
    again = experiment.test(run(method, 'again'), Path(cfg.work_dir, 'epoch_4.pth'))
    assert again == scores
    state = content(adapter)['state_dict']
    assert 'head.bn.running_mean' in state, 'what the head has gathered belongs to it'
    trained = {n for n, p in runner.plain_model.named_parameters() if p.requires_grad}
    assert set(state) == trained | {k for k in runner.plain_model.state_dict() if k.startswith('head.')}
    assert len((tmp_path / 'predictions.csv').read_text().splitlines()) == 101


def test_the_result_tells_what_was_run(run, tmp_path):
    cfg = run('fc_svhn', train_cfg__max_epochs=1, randomness__seed=5)
    train(cfg)
    scores = experiment.test(run('fc_svhn', 'test', randomness__seed=5), Path(cfg.work_dir, 'adapter_epoch_1.pth'))
    record = read_record(tmp_path / 'test/result.json')
    assert (record.config, record.seed, record.epoch, record.samples) == ('fc_svhn', 5, 1, 100)
    assert record.top1 == scores['acc/top1'] and record.params == 32 * 10 + 10
    assert record.options == {'train_cfg.max_epochs': 1, 'randomness.seed': 5}, 'those of training count as well'


def test_a_resumed_run_ends_with_the_same_weights(run):
    whole = train(run('bapat_svhn_b32', 'whole')).plain_model
    train(run('bapat_svhn_b32', 'cut', train_cfg__max_epochs=2))
    resumed = train(run('bapat_svhn_b32', 'cut', 'auto', 'new')).plain_model
    assert_same(whole.state_dict(), resumed.state_dict())


def test_missing_files_are_told_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        train(prepare(REPO / 'configs/vit_bapat_cifar100_b32_mae.py', Options()))
    for part in ('mae_pretrain_vit_base.pth', 'https://dl.fbaipublicfiles.com', 'data/cifar100', 'cs.toronto.edu'):
        assert part in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('samples', 'processes', 'options', 'fits'),
    [
        (33, None, {}, False),
        (34, None, {}, True),
        (33, None, dict(train_dataloader__drop_last=True), True),
        (33, None, dict(model__head__bn=False), True),
        (65, '2', {}, False),  # 33 for each
        (33, '2', {}, True),
    ],
)
def test_one_sample_left_over_for_a_batchnorm(run, monkeypatch, samples, processes, options, fits):
    cfg = run(
        'fc_svhn', train_dataloader__dataset__indices=samples, **dict(train_dataloader__drop_last=False) | options
    )
    if processes:
        for variable in ('RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
            monkeypatch.setenv(variable, '0')
        monkeypatch.setenv('WORLD_SIZE', processes)
        cfg.launcher = 'pytorch'
    said = pytest.raises(UserError, match='batches of 32 leave one of 33 samples over')
    with nullcontext() if fits else said:
        check_experiment(cfg, ('train_dataloader',))
