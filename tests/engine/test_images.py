"""The image experiments from end to end: a ViT config of the tables, made small, on digits in SVHN's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from sklearn.datasets import load_digits

from vpetl_mm import UserError, build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine import experiment
from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.preflight import check_experiment
from vpetl_mm.engine.record import read_record

REPO = Path(__file__).parents[2]
SMALL = """\
_base_ = '{repo}/configs/vit_{method}_mae.py'
_arch = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
_pil = dict(type='NumpyToPIL', to_rgb=False)
_resize = dict(type='torchvision/Resize', size=16, interpolation='bicubic')
_loader = dict(num_workers=0, dataset=dict(data_root='{root}', pipeline=[_pil, _resize, dict(type='PackInputs')]))
model = dict(base=None, backbone=dict(arch=_arch, img_size=16, patch_size=4), head=dict(in_channels=32))
train_dataloader = dict(batch_size=32, **_loader)
val_dataloader = _loader
test_dataloader = _loader
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(_delete_=True, type='AdamW', lr=5e-3))
auto_scale_lr = dict(enable=False)
train_cfg = dict(max_epochs=4)
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    """Real handwritten digits, 320 to train on and 100 to test on, in the files of SVHN."""
    root = tmp_path_factory.mktemp('svhn')
    images, labels = load_digits(return_X_y=True)
    grey = np.kron(images.reshape(-1, 8, 8), np.ones((4, 4))) / 16 * 255
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    for name, part in (('train', slice(0, 320)), ('test', slice(320, 420))):
        y = np.where(labels[part] == 0, 10, labels[part]).astype(np.uint8)
        scipy.io.savemat(root / f'{name}_32x32.mat', {'X': rgb[part].transpose(1, 2, 3, 0), 'y': y[:, None]})
    return root


@pytest.fixture
def run(digits, tmp_path):
    """Prepares ``vit_<method>_mae`` made small, with options."""

    def make(method: str, folder: str = 'run', resume: str | None = None, resume_with: str | None = None, **options):
        path = tmp_path / f'{method}.py'
        path.write_text(SMALL.format(repo=REPO, method=method, root=digits))
        dotted = {k.replace('__', '.'): v for k, v in options.items()}
        return prepare(path, Options(str(tmp_path / folder), resume, cfg_options=dotted, resume_with=resume_with))

    return make


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
    state = torch.load(adapter, weights_only=True)['state_dict']
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


def test_holding_out_validates_on_the_training_file_and_keeps_the_best(run):
    cfg = run('fc_svhn', holdout__fraction=0.25, train_cfg__max_epochs=2)
    runner = train(cfg)
    assert len(runner.train_dataloader.dataset) == 240 and len(runner.val_dataloader.dataset) == 80
    assert list(Path(cfg.work_dir).glob('best_acc_top1_epoch_*.pth'))


def test_a_resumed_run_ends_with_the_same_weights(run):
    whole = train(run('bapat_svhn_b32', 'whole')).plain_model
    train(run('bapat_svhn_b32', 'cut', train_cfg__max_epochs=2))
    resumed = train(run('bapat_svhn_b32', 'cut', 'auto', 'new')).plain_model
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_missing_files_are_told_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        train(prepare(REPO / 'configs/vit_bapat_cifar100_b32_mae.py', Options()))
    for part in ('mae_pretrain_vit_base.pth', 'https://dl.fbaipublicfiles.com', 'data/cifar100', 'cs.toronto.edu'):
        assert part in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_head_of_another_size_is_refused(run):
    with pytest.raises(UserError, match='num_classes'):
        train(run('fc_svhn', model__head__num_classes=7))


def test_both_libraries_in_one_process_in_any_order():
    names = ['vit_bapat_svhn_b32_mae', 'swin_bapat_ssv2_b128', 'vit_bapat_ssv2_b32_videomae', 'vit_fc_svhn_mae']
    counts = {n: build_model(REPO / f'configs/{n}.py', meta=True).plan.count()['trainable'] for n in names}
    for name in reversed(names):
        assert (
            build_model(load_config(REPO / f'configs/{name}.py'), meta=True).plan.count()['trainable'] == counts[name]
        )


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
    if fits:
        check_experiment(cfg, ('train_dataloader',))
        return
    with pytest.raises(UserError, match='batches of 32 leave one of 33 samples over'):
        check_experiment(cfg, ('train_dataloader',))
