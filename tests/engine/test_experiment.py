"""Training and testing for real: what a run writes, resumes, repeats and refuses."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from ranks import commands, free_port
from small_experiment import QUICK, SGD, adapter, assert_same, content, held_out
from torch.utils.checkpoint import checkpoint

from vpetl_mm import UserError
from vpetl_mm.commands.conversion import convert
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.preflight import check_experiment
from vpetl_mm.models.window_attention import FastWindowAttention


def test_a_run_writes_an_adapter_and_its_full_state_and_leaves_the_backbone_and_the_environment(
    ready, tmp_path, clips
):
    before = dict(os.environ)
    runner = train(ready())
    assert {k: v for k, v in os.environ.items() if k in before} == before
    run = tmp_path / 'run'
    small, full = adapter(run), content(run / 'epoch_2.pth')['state_dict']
    trained = {n: p for n, p in runner.plain_model.named_parameters() if p.requires_grad}
    assert trained and set(small) == set(trained)
    held = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
    assert held == {id(p) for p in trained.values()}, 'the optimizer holds nothing else'
    assert any(k.startswith('cls_head.') for k in small)
    assert set(full) == set(runner.plain_model.state_dict())
    base = content(clips / 'base.pth')
    assert_same(base, {key: full[f'backbone.{key}'] for key in base})
    meta = content(run / 'adapter_epoch_2.pth')['meta']
    assert meta['base']['file'] == f'{clips}/base.pth' and len(meta['base']['sha256']) == 64
    assert 'PETLRecognizer3D' in meta['cfg'] and meta['dataset_meta']['classes'] is not None
    assert list(run.glob('*/vis_data/events.out.tfevents*')), 'TensorBoard'
    assert not list(run.glob('*.partial'))


def test_testing_gives_the_accuracies_of_its_predictions_from_the_adapter_and_the_full_state(ready, tmp_path):
    cfg = ready()
    train(cfg)
    scores = run_test(cfg, tmp_path / 'run/adapter_epoch_2.pth', str(tmp_path / 'p.csv'))
    rows = [line.split(',') for line in (tmp_path / 'p.csv').read_text().splitlines()[1:]]
    assert len(rows) == 12
    right = [row[1] == row[2] for row in rows]
    assert scores['acc/top1'] == pytest.approx(100 * np.mean(right))
    logits = np.array([[float(v) for v in row[4].split()] for row in rows])
    labels = np.array([int(row[1]) for row in rows])
    top5 = [label in np.argsort(-logit)[:5] for label, logit in zip(labels, logits, strict=True)]
    assert scores['acc/top5'] == pytest.approx(100 * np.mean(top5))
    per_class = [np.mean([r for r, x in zip(right, labels, strict=True) if x == c]) for c in np.unique(labels)]
    assert scores['acc/mean_class'] == pytest.approx(100 * np.mean(per_class))
    assert run_test(cfg, tmp_path / 'run/epoch_2.pth', str(tmp_path / 'full.csv')) == scores
    assert (tmp_path / 'full.csv').read_text() == (tmp_path / 'p.csv').read_text()


def test_one_seed_is_one_result_and_another_is_another(ready, tmp_path):
    train(ready('one'))
    train(ready('two'))
    train(ready('three', randomness__seed=1))
    assert_same(adapter(tmp_path / 'one'), adapter(tmp_path / 'two'))
    other = adapter(tmp_path / 'three')
    assert any(not torch.equal(v, other[k]) for k, v in adapter(tmp_path / 'one').items())


def test_resuming_equals_never_having_stopped(ready, tmp_path):
    train(ready('whole'))
    train(ready('halves', train_cfg__max_epochs=1))
    train(ready('halves', resume='auto', resume_with='new'))
    assert_same(adapter(tmp_path / 'whole'), adapter(tmp_path / 'halves'))


def test_augmentation_differs_from_epoch_to_epoch(ready, monkeypatch):
    from mmaction.datasets.transforms import SampleFrames

    seen: list[list[int]] = []
    original = SampleFrames.transform

    def spy(self, results):
        seen.append(np.random.randint(1 << 30, size=1).tolist())
        return original(self, results)

    monkeypatch.setattr(SampleFrames, 'transform', spy)
    train(ready(train_dataloader__num_workers=0))
    _sample, *seen = seen  # the check before the run reads a sample
    assert len(seen) == 48
    assert not {tuple(s) for s in seen[:24]} & {tuple(s) for s in seen[24:]}


def test_amp_trains_in_bfloat16_on_the_cpu(ready, tmp_path, monkeypatch):
    kinds = set()
    original = FastWindowAttention.bias_and_mask

    def spy(self, n, mask, extras, dtype):
        kinds.add(dtype)
        return original(self, n, mask, extras, dtype)

    monkeypatch.setattr(FastWindowAttention, 'bias_and_mask', spy)
    train(ready(amp=True))
    assert kinds == {torch.bfloat16}
    assert all(torch.isfinite(v).all() and v.dtype == torch.float32 for v in adapter(tmp_path / 'run').values())


def test_accumulation_equals_the_large_batch(ready, tmp_path):
    still = {'model__backbone__drop_path_rate': 0.0, 'auto_scale_lr__enable': True}
    sgd = {'optim_wrapper__optimizer': dict(type='SGD', lr=1.0, _delete_=True)}
    one = train(ready('large', train_dataloader__batch_size=8, **still, **sgd))
    two = train(ready('small', train_dataloader__batch_size=2, optim_wrapper__accumulative_counts=4, **still, **sgd))
    rates = [r.optim_wrapper.optimizer.param_groups[0]['lr'] for r in (one, two)]
    assert rates[0] == rates[1] == pytest.approx(8 / 256)
    assert_same(adapter(tmp_path / 'large'), adapter(tmp_path / 'small'), atol=1e-5, rtol=1e-4)


def test_accumulation_ends_each_epoch_with_a_step_so_that_a_resumed_run_is_the_same(ready, tmp_path):
    # 21 clips: five full batches of 4, of which four make two steps of 2
    odd = {'train_dataloader__drop_last': True, 'train_dataloader__dataset__indices': 21}
    odd |= {'optim_wrapper__accumulative_counts': 2, 'model__backbone__drop_path_rate': 0.0}
    whole = train(ready('whole', **odd))
    assert len(whole.train_dataloader) == 4 and whole.iter == 8
    train(ready('cut', train_cfg__max_epochs=1, **odd))
    train(ready('cut', resume='auto', resume_with='new', **odd))
    assert_same(adapter(tmp_path / 'whole'), adapter(tmp_path / 'cut'))


def test_activation_checkpointing_changes_nothing_but_memory(ready, tmp_path):
    train(ready('plain', **SGD))
    train(ready('checkpointed', model__backbone__with_cp=True, **SGD))
    assert_same(adapter(tmp_path / 'plain'), adapter(tmp_path / 'checkpointed'), atol=1e-6, rtol=1e-4)


def test_two_processes_equal_one_with_the_same_total_batch(ready, config, tmp_path):
    train(ready('one', train_dataloader__batch_size=8, model__backbone__drop_path_rate=0.0, **SGD))
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}']
    command += ['tools/train.py', str(config), '--launcher', 'pytorch', '--work-dir', str(tmp_path / 'two')]
    command += ['--cfg-options', 'model.backbone.drop_path_rate=0.0']
    command += ['optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=0.1']
    ((status, output),) = commands([(command, {})], tmp_path)
    assert status == 0, output[-2000:]
    assert_same(adapter(tmp_path / 'one'), adapter(tmp_path / 'two'), atol=1e-5, rtol=1e-4)


def test_a_random_backbone_is_proved_by_its_seed(ready, tmp_path):
    cfg = ready(model__base=None)
    train(cfg)
    file = tmp_path / 'run/adapter_epoch_2.pth'
    assert run_test(cfg, file)['acc/top1'] >= 0
    with pytest.raises(UserError, match='other weights'):
        run_test(ready(model__base=None, randomness__seed=5), file)


def test_inputs_normalised_otherwise_than_the_bases_are_told_of_in_one_line(ready, clips, tmp_path, capsys):
    convert(str(clips / 'base.pth'), str(tmp_path / 'base.safetensors'), kind='mmaction_swin')
    other = {'model__base__file': str(tmp_path / 'base.safetensors'), 'model__data_preprocessor__mean': [0, 0, 0]}
    cfg = ready(train_cfg__max_epochs=1, **other, **QUICK)
    for start in (lambda: train(cfg), lambda: run_test(cfg, tmp_path / 'run/adapter_epoch_1.pth')):
        # a logger of the last test's run, which started in the same second, would have this run's name
        cfg.experiment_name = f'{tmp_path.name}_{time.monotonic_ns()}'
        capsys.readouterr()
        start()
        said = capsys.readouterr()
        lines = [line for line in (said.out + said.err).splitlines() if 'data_preprocessor' in line]
        assert len(lines) == 1 and '123.675' in lines[0] and '[0.0, 0.0, 0.0]' in lines[0]


def test_an_adapter_meets_its_own_base_or_none(ready, tmp_path, clips):
    train(ready())
    file = tmp_path / 'run/adapter_epoch_2.pth'
    with pytest.raises(UserError, match='random, base=None'):
        run_test(ready(model__base=None), file)
    other = content(clips / 'base.pth')
    other['norm1.weight'] = other['norm1.weight'] + 1
    torch.save(other, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'base\.pth.*other\.pth'):
        run_test(ready(model__base__file=str(tmp_path / 'other.pth')), file)
    with pytest.raises(UserError, match='another config'):
        run_test(ready(model__petl__deltas__patt__d_bottle=3), file)
    for option, value in (('slots', 'qk'), ('scale', 0.1), ('act', 'ReLU')):
        with pytest.raises(UserError, match=rf'another config: petl\.deltas\.patt\.{option} is'):
            run_test(ready(**{f'model__petl__deltas__patt__{option}': value}), file)
    full = tmp_path / 'run/epoch_2.pth'
    with pytest.raises(UserError, match=r'base\.pth.*other\.pth'):
        run_test(ready(model__base__file=str(tmp_path / 'other.pth')), full)
    with pytest.raises(UserError, match=r'base\.pth.*random'):
        train(ready(resume='auto', model__base=None))
    with pytest.raises(UserError, match='cannot be resumed'):
        train(ready('again', resume=str(file)))


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (
            {'model__cls_head__num_classes': 3, 'train_dataloader__dataset__num_classes': 3},
            'outside the classes 0 to 2',
        ),
        (
            {'model__backbone__arch__embed_dims': 16, 'model__cls_head__in_channels': 32},
            r'8 of 65 keys fit; of another shape: patch_embed',
        ),
        ({'train_dataloader__batch_size': 25, 'train_dataloader__drop_last': True}, 'fewer than a batch of 25'),
        ({'model__base__file': 'nowhere.pth'}, r'nowhere\.pth'),
        ({'load_from': 'x.pth'}, 'model.base'),
        ({'model__cls_head__num_classes': 5}, 'num_classes is 5'),
        ({'model__backbone__drop_path': 0.1}, "model.backbone 'drop_path'.*Did you mean 'drop_path_rate'"),
        ({'model__backbone__type': 'SwinTransformer3d'}, 'model is wrong.*SwinTransformer3d'),
        ({'train_dataloader__dataset__type': 'PETLVideoDatset'}, 'train_dataloader is wrong.*PETLVideoDatset'),
        ({'train_dataloader__dataset__data_prefix__video': '/'}, 'do not exist'),
        ({'train_dataloader__batch_size': 0}, 'batch_size must be'),
        ({'optim_wrapper__optimizer__type': 'Adamm'}, "there is no optimizer 'Adamm'.* mean 'Adam"),
        ({'optim_wrapper__optimizer__lrr': 1}, 'optim_wrapper is wrong.*lrr'),
        ({'model__petl__train': [], 'model__petl__deltas': None}, 'Nothing is trained'),
        ({'modle__petl__train': []}, "'modle'.*model"),
        (
            {'activation_checkpointing': ['backbone.layer.0']},
            r"names 'backbone\.layer\.0'.* Did you mean 'backbone\.layers\.0'",
        ),
        ({'resume': 'auto'}, 'Nothing to resume'),
        (
            {'holdout': dict(fraction=0.25, seed=0), 'val_evaluator__dump': '/gone/p.csv'},
            r'predictions cannot be written to /gone/p\.csv',
        ),
        ({'optim_wrapper__optimizer__lr': 'abc'}, "lr must be a number of at least 0, got 'abc'"),
        ({'optim_wrapper__optimizer': None}, 'has no optim_wrapper.optimizer'),
        ({'optim_wrapper__clip_grad': dict(max=1)}, 'key of optim_wrapper.clip_grad.*max_norm'),
        ({'train_cfg__max_epoch': 3}, "key of train_cfg 'max_epoch'.*Did you mean 'max_epochs'"),
        ({'train_cfg__type': 'EpochBasedTrainloop'}, "mean 'EpochBasedTrainLoop'"),
        ({'train_cfg__val_interval': 0}, 'val_interval must be'),
        ({'param_scheduler': [dict(type='LinearLR', start_factor=0, end=2)]}, r'param_scheduler\[0\] is wrong'),
        ({'param_scheduler': [dict(type='LinerLR')]}, "mean 'LinearLR'"),
        ({'param_scheduler': [dict(type='ConstantLR', factr=1)]}, "mean 'factor'"),
        ({'train_dataloader__num_workers': 'abc'}, 'num_workers must be a whole number of at least 0'),
        ({'train_dataloader__num_worker': 1}, "mean 'num_workers'"),
        ({'train_dataloader__sampler__type': 'InfiniteSampler'}, 'never end'),
        ({'train_dataloader__dataset__pipeline': []}, 'train_dataloader.dataset.pipeline is wrong.*data_samples'),
        ({'train_dataloader__dataset__pipeline__1__num_clips': 2}, 'returns 2 clips per video.*num_clips=1'),
        ({'train_dataloader__dataset__pipeline__3__input_format': 'NCHW'}, r'the model takes \(clips, 3, T, H, W\)'),
        ({'train_dataloader__collate_fn': dict(type='default_collate')}, 'train_dataloader.collate_fn, is wrong'),
        ({'model__data_preprocessor__mean': [1, 2]}, 'model.data_preprocessor.* is wrong'),
        ({'model__cls_head__average_clips': 'abc'}, "average_clips must be one of .*got 'abc'"),
        ({'model__cls_head__label_smooth_eps': 'abc'}, "label_smooth_eps must be a number .*got 'abc'"),
        ({'default_hooks__logger__interval': 'abc'}, 'logger.interval must be a whole number'),
        ({'default_hooks__checkpoint__max_keep_ckpts': 'abc'}, 'max_keep_ckpts must be a number'),
        ({'default_hooks__checkpoint__intervall': 1}, "mean 'interval'"),
        ({'default_hooks__unreadable_video__max_share': -1}, 'share from 0 to 1'),
        ({'custom_hooks': [dict(type='EarlyStopping', monitor='x')]}, "mean 'EarlyStoppingHook'"),
        ({'custom_hooks': [dict(type='EMAHook', priority='abc')]}, r'custom_hooks\[0\].priority is wrong'),
        ({'visualizer__vis_backends': [dict(type='LocalVisBackends')]}, "mean 'LocalVisBackend'"),
        ({'visualizer__vis_backend': []}, "mean 'vis_backends'"),
        ({'randomness__sed': 1}, "mean 'seed'"),
        ({'randomness__seed': -1}, 'randomness.seed must be'),
        ({'env_cfg__mp_cfg__mp_start_method': 'forkk'}, "mean 'fork'"),
        ({'log_level': 'LOUD'}, 'log_level is wrong.*LOUD'),
        ({'compile_backbone': 'yes'}, 'compile_backbone is'),
        ({'work_dir': '/proc/run'}, 'cannot be written'),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(ready, tmp_path, wrong, said):
    wrong = dict(wrong)
    resume, work_dir = wrong.pop('resume', None), wrong.pop('work_dir', 'run')
    with pytest.raises(UserError, match=said):
        train(ready(work_dir, resume, **wrong))
    assert not (tmp_path / 'run').exists()


def test_a_holdout_is_validated_on_and_the_best_epoch_kept(ready, clips, tmp_path):
    cfg = ready(**held_out(clips))
    runner = train(cfg)
    fit, out = (
        {d.get_data_info(i)['filename'] for i in range(len(d))}
        for d in (runner.train_dataloader.dataset, runner.val_dataloader.dataset)
    )
    assert len(fit) == 18 and len(out) == 6 and not fit & out
    (best,) = (tmp_path / 'run').glob('best_*.pth')
    assert set(content(best)['state_dict']) == set(adapter(tmp_path / 'run'))
    assert run_test(cfg, best)['acc/top1'] >= 0


def test_what_a_person_must_know_of_validation_is_on_the_console(ready, clips, capfd):
    stopping = [dict(type='EarlyStoppingHook', monitor='acc/top1', stopping_threshold=-1)]
    runner = train(ready(custom_hooks=stopping, **held_out(clips)))
    said = ''.join(capfd.readouterr())
    assert 'chosen on 6 validation samples, each 16.7 points' in said
    assert runner.epoch == 1 and 'Stopping threshold reached' in said


@pytest.mark.parametrize(
    ('missing', 'how'),
    [
        ('data/ssv2/trainval.txt', 'prepare_data.py ssv2'),
        ('data/fights/train.txt', 'see data/README.md'),
        ('/elsewhere/ssv2/list.txt', 'see data/README.md'),
        ('data/demo/target_train.txt', 'make demo'),
    ],
)
def test_how_to_get_what_is_missing_fits_what_is_missing(ready, missing, how, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    help_ = 'tools/prepare_data.py ssv2 --src DIR makes it from the official download; see data/README.md'
    with pytest.raises(UserError) as error:
        train(ready(data_help=help_, train_dataloader__dataset__ann_file=missing))
    line = next(line for line in str(error.value).splitlines() if missing in line)
    assert how in line and ('ssv2 --src' in line) == ('ssv2 --src' in f'{how} --src')


def test_a_hook_that_can_only_be_built_in_a_run_is_no_mistake(ready):
    train(ready(custom_hooks=[dict(type='VisualizationHook')], train_cfg__max_epochs=1))


def test_a_loss_that_is_no_number_ends_the_run(ready, tmp_path):
    with pytest.raises(UserError, match='lower learning rate'):
        train(ready(optim_wrapper__optimizer__lr=1e30, train_cfg__max_epochs=1))
    assert not list(tmp_path.glob('run/*.pth'))


@pytest.mark.parametrize(
    'what', ['cls_head.fc_cls.weight', 'backbone.layers.0.blocks.0.attn.relative_position_index']
)
def test_weights_that_the_last_step_spoils_are_never_kept(ready, tmp_path, what):
    class Spoil(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, *_, **__):
            if runner.iter == 11:
                tensor = runner.model.state_dict()[what]
                tensor.view(-1)[0] = float('nan') if tensor.is_floating_point() else 1

    if what.endswith('index'):
        train(ready(), [Spoil()])  # whole numbers are finite
    else:
        with pytest.raises(UserError, match=f'not finite, {what} among them'):
            train(ready(), [Spoil()])
        assert [f.name for f in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']


def test_scores_that_are_not_finite_end_a_test(ready, tmp_path):
    train(ready(train_cfg__max_epochs=1))

    class Spoil(Hook):
        def before_test(self, runner):
            runner.model.cls_head.fc_cls.bias.data[3] = float('inf')

    with pytest.raises(UserError, match=r'scores of .*mp4 are not finite'):
        run_test(ready(), tmp_path / 'run/adapter_epoch_1.pth', hooks=[Spoil()])
    assert not (tmp_path / 'run/result.json').exists()


def test_a_frozen_weight_that_changes_is_found(ready, monkeypatch):
    from vpetl_mm.engine.hooks.epoch_seed_hook import EpochSeedHook

    def spoil(self, runner, *_, **__):
        with torch.no_grad():
            runner.model.backbone.patch_embed.proj.weight.add_(1)

    monkeypatch.setattr(EpochSeedHook, 'after_train_epoch', spoil)
    with pytest.raises(RuntimeError, match=r'patch_embed\.proj\.weight'):
        train(ready())


LORA = {'model__petl__deltas': dict(lora=dict(type='LoRA', rank=2), _delete_=True)}


@pytest.mark.parametrize('unused', [False, True])
def test_what_gets_no_gradient_ends_the_run(ready, monkeypatch, unused):
    from mmengine.runner import activation_checkpointing

    def reentrant(forward):
        return lambda *args: checkpoint(forward, *args, use_reentrant=True)

    monkeypatch.setattr(activation_checkpointing, 'wrap_forward', reentrant)  # no gradient behind a frozen stem
    blocks = [f'backbone.layers.0.blocks.{i}' for i in range(2)]
    options = {'activation_checkpointing': blocks, 'train_cfg__max_epochs': 1} | LORA
    if unused:
        train(ready(find_unused_parameters=True, **options))
        return
    with pytest.raises(UserError, match=r'8 of 18 trained tensors get no gradient, backbone\.layers\.0.*lora\.A\.q'):
        train(ready(**options))


def test_what_does_not_move_is_warned_of(ready, monkeypatch, tmp_path):
    from vpetl_mm.engine.hooks import frozen_backbone_hook
    from vpetl_mm.engine.hooks.epoch_seed_hook import EpochSeedHook

    def silence(self, runner):
        runner.model.backbone.layers[1].blocks[0].attn.qkv.deltas['lora'].B['v'].weight.register_hook(
            torch.zeros_like
        )

    monkeypatch.setattr(EpochSeedHook, 'before_train', silence)
    monkeypatch.setattr(frozen_backbone_hook, 'ENOUGH', 10)
    train(ready(**LORA))
    (log,) = (tmp_path / 'run').glob('*/*.log')
    # B, and so A; they do not decay here
    said = '2 of 18 trained tensors have not changed in 12 steps, backbone.layers.1.blocks.0.attn.qkv.deltas.lora.A.v'
    assert said in log.read_text()


@pytest.mark.parametrize(('batch_size', 'fits'), [(2, False), (1, True)])
def test_views_are_tested_in_parts_for_one_clip_at_a_time(ready, tmp_path, batch_size, fits):
    options = dict(model__test_cfg=dict(max_testing_views=2), test_dataloader__batch_size=batch_size)
    said = pytest.raises(UserError, match=r'max_testing_views needs test_dataloader\.batch_size=1, got 2')
    with nullcontext() if fits else said:
        check_experiment(ready(**options), ('test_dataloader',))
