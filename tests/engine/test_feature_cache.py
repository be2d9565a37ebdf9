"""A head trained on cached features is the head trained on the images themselves, only sooner."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_experiment import adapter, assert_same, prepared, write_config

from vpetl_mm import UserError, build_model
from vpetl_mm.datasets.feature_dataset import FeatureDataset
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.feature_cache import check_cache, is_fixed, random_transforms, views_of

FLIP = dict(type='torchvision/RandomHorizontalFlip', p=0.5)


def weights(cfg) -> dict[str, torch.Tensor]:
    """The last adapter file's tensors."""
    return adapter(Path(cfg.work_dir), cfg.train_cfg.max_epochs)


def counting(monkeypatch) -> Counter:
    """Counts the images that go through a backbone."""
    from mmpretrain.models.backbones import VisionTransformer

    seen, forward = Counter(), VisionTransformer.forward

    def counted(self, x):
        seen['images'] += len(x)
        return forward(self, x)

    monkeypatch.setattr(VisionTransformer, 'forward', counted)
    return seen


@pytest.fixture
def fc(run):
    """Prepares fc on digits."""

    def make(folder: str = 'run', **options):
        return run('fc_svhn', folder, holdout__fraction=0.2, **options)

    return make


def test_the_same_head_in_one_pass_over_the_images(fc, monkeypatch):
    plain, cached = fc('plain'), fc('cached', cache_features=True)
    seen = counting(monkeypatch)
    runner = train(plain)
    expected = runner.message_hub.get_scalar('val/acc/top1').current()
    assert seen['images'] == 4 * (256 + 64), '4 epochs of training and validation'
    seen.clear()
    runner = train(cached)
    assert seen['images'] == 256 + 64
    assert runner.message_hub.get_scalar('val/acc/top1').current() == expected
    theirs = weights(plain)
    moved = build_model(plain, init_weights=False).head.fc.weight
    assert not torch.equal(theirs['head.fc.weight'], moved), 'training did something'
    assert_same(theirs, weights(cached), atol=1e-5, rtol=1e-5)
    # and the model is itself again
    assert type(runner.plain_model.data_preprocessor).__name__ == 'ClsDataPreprocessor'
    assert {k.split('.')[0] for k in runner.plain_model.state_dict()} == {'backbone', 'head'}


def test_a_run_resumed_on_cached_features_equals_the_uninterrupted_one(fc, run):
    whole = fc('whole', cache_features=True)
    train(whole)
    train(fc('halves', cache_features=True, train_cfg__max_epochs=2))
    rest = run('fc_svhn', 'halves', 'auto', 'new', holdout__fraction=0.2, cache_features=True)
    train(rest)
    assert_same(weights(whole), weights(rest))


def random_config(fc, folder: str, p: float = 0.5, **options):
    cfg = fc(folder, **options)
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(FLIP, p=p))
    return cfg


def test_views_of_a_random_pipeline_differ_and_take_turns(fc, monkeypatch):
    seen = counting(monkeypatch)
    cfg = random_config(fc, 'views', cache_features=dict(views=3))
    runner = train(cfg)
    assert seen['images'] == 3 * 256 + 64
    dataset = runner.train_loop.dataloader.dataset
    assert len(dataset.views) == 3 and dataset.view == 3 % 3, 'the fourth epoch sees the first view'
    a, b, c = (features for features, _ in dataset.views)
    same = [(x == y).all(1).float().mean().item() for x, y in ((a, b), (b, c), (a, c))]
    assert all(0.3 < s < 0.7 for s in same), 'half of the images are flipped alike'


def test_the_views_are_those_of_the_seed(fc):
    runners = [train(random_config(fc, str(k), cache_features=dict(views=1))) for k in range(2)]
    a, b = (r.train_loop.dataloader.dataset.views[0][0] for r in runners)
    assert torch.equal(a, b)


def test_in_bfloat16_too(fc):
    options = dict(optim_wrapper__type='AutocastOptimWrapper', optim_wrapper__any_cpu=True)
    plain, cached = fc('plain', **options), fc('cached', cache_features=True, **options)
    train(plain), train(cached)
    assert_same(weights(plain), weights(cached), atol=2e-3, rtol=2e-3)


def test_a_random_pipeline_without_views_is_refused_before_anything_is_written(fc):
    cfg = random_config(fc, 'refused', cache_features=True)
    with pytest.raises(UserError, match='RandomHorizontalFlip of the training pipeline is random; set the number'):
        train(cfg)
    assert not Path(cfg.work_dir).exists()


def inside_another(cfg) -> None:
    pipeline = [*cfg.train_dataloader.dataset.pipeline, FLIP]
    inner = dict(cfg.train_dataloader.dataset, pipeline=pipeline)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda cfg: cfg.model.petl.train.append('norm'), r'head alone.*also trains backbone'),
        (lambda cfg: cfg.model.backbone.update(drop_rate=0.1), 'at random'),
        (lambda cfg: cfg.model.backbone.update(drop_path_rate=0.1), 'at random'),
        (lambda cfg: cfg.model.backbone.update(layer_cfgs=dict(attn_drop_rate=0.1)), 'at random'),
        (inside_another, 'RandomHorizontalFlip of the training pipeline is random'),
        (lambda cfg: cfg.update(cache_features=dict(views=5)), '5 views are more than 4 epochs'),
        (
            lambda cfg: cfg.train_dataloader.dataset.pipeline.insert(
                0, dict(type='SampleFrames', num_clips=2, test_mode=True)
            ),
            'one clip per sample',
        ),
        (lambda cfg: cfg.train_dataloader.dataset.pipeline.insert(0, dict(type='ThreeCrop')), 'one clip per sample'),
    ],
)
def test_what_a_cache_would_change_is_refused(fc, change, said):
    cfg = fc('refused', cache_features=True)
    change(cfg)
    with pytest.raises(UserError, match=said):
        check_cache(cfg, build_model(cfg, meta=True))


@pytest.mark.parametrize('wrong', [dict(views=0), dict(views=True), dict(n=2), 3, 'yes', dict(views=2.5)])
def test_another_setting_is_refused(wrong):
    with pytest.raises(UserError, match='cache_features must be'):
        views_of(wrong)


def test_what_is_random():
    video = [dict(type='SampleFrames', clip_len=8), dict(type='DecordDecode'), dict(type='mmaction.Resize')]
    assert random_transforms(video) == ['SampleFrames']
    assert random_transforms([dict(video[0], test_mode=True), *video[1:]]) == []
    assert random_transforms([dict(type='torchvision/Resize', size=8), FLIP]) == ['torchvision/RandomHorizontalFlip']
    assert random_transforms([dict(type='MyOwn')]) == ['MyOwn'], 'what is not known may be random'


def test_validation_on_several_clips_a_sample_is_not_cached():
    clip = [dict(type='SampleFrames', clip_len=8, test_mode=True), dict(type='DecordDecode')]
    assert is_fixed(dict(pipeline=clip)) and is_fixed(dict(dataset=dict(pipeline=clip)))
    assert not is_fixed(dict(pipeline=[dict(clip[0], num_clips=4), clip[1]]))
    assert not is_fixed(dict(pipeline=[*clip, dict(type='ThreeCrop', crop_size=8)]))
    assert not is_fixed(dict(datasets=[dict(pipeline=clip), dict(pipeline=[*clip, FLIP])]))


def test_each_view_has_its_own_labels():
    a, b = (torch.full((2, 3), v) for v in (1.0, 2.0))
    data = FeatureDataset([(a, ['cat', 'dog']), (b, ['cat', 'cow'])])
    data.view = 1
    assert len(data) == 2 and data[1]['data_samples'] == 'cow' and torch.equal(data[1]['features'], b[1])


def test_a_video_swins_head_on_cached_clips(clips, tmp_path):
    fixed = """
model['backbone'].update(drop_path_rate=0.0)
cache_features = {cache}
"""
    runs = []
    for cache in (False, True):
        path = write_config(clips, tmp_path / f'{cache}.py', 'fc', fixed.format(cache=cache))
        cfg = prepared(path, tmp_path / str(cache))
        cfg.train_dataloader.dataset.pipeline[1].test_mode = True
        train(cfg)
        runs.append(weights(cfg))
    assert_same(*runs, atol=1e-5, rtol=1e-5)
