"""A head trained on cached features is the head trained on the images themselves, only sooner."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_experiment import write_config
from test_images import digits, run  # noqa: F401  fixtures

from vpetl_mm import UserError, build_model
from vpetl_mm.datasets.feature_dataset import FeatureDataset
from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.feature_cache import check_cache, is_fixed, random_transforms, views_of

FLIP = dict(type='torchvision/RandomHorizontalFlip', p=0.5)


def weights(cfg) -> dict[str, torch.Tensor]:
    """The last adapter file's tensors."""
    file = Path(cfg.work_dir, f'adapter_epoch_{cfg.train_cfg.max_epochs}.pth')
    return torch.load(file, weights_only=True)['state_dict']


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
def fc(run):  # noqa: F811
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
    ours, theirs = weights(cached), weights(plain)
    assert ours.keys() == theirs.keys()
    moved = build_model(plain, init_weights=False).head.fc.weight
    assert not torch.equal(theirs['head.fc.weight'], moved), 'training did something'
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5)


def test_the_model_is_itself_again_afterwards(fc):
    runner = train(fc(cache_features=True))
    assert type(runner.plain_model.data_preprocessor).__name__ == 'ClsDataPreprocessor'
    assert {k.split('.')[0] for k in runner.plain_model.state_dict()} == {'backbone', 'head'}


def test_a_run_resumed_on_cached_features_equals_the_uninterrupted_one(fc, run):  # noqa: F811
    whole = fc('whole', cache_features=True)
    train(whole)
    train(fc('halves', cache_features=True, train_cfg__max_epochs=2))
    rest = run('fc_svhn', 'halves', 'auto', 'new', holdout__fraction=0.2, cache_features=True)
    train(rest)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(rest)[name], value, atol=0, rtol=0)


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
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(cached)[name], value, atol=2e-3, rtol=2e-3)


def test_a_random_pipeline_without_views_is_refused(fc):
    with pytest.raises(UserError, match='RandomHorizontalFlip of the training pipeline is random; give the number'):
        train(random_config(fc, 'refused', cache_features=True))


def test_what_trains_more_than_the_head_is_refused(run):  # noqa: F811
    with pytest.raises(UserError, match=r'head alone.*also trains backbone'):
        train(run('bapat_svhn_b32', cache_features=True))


@pytest.mark.parametrize(
    'rates', [dict(drop_rate=0.1), dict(drop_path_rate=0.1), dict(layer_cfgs=dict(attn_drop_rate=0.1))]
)
def test_a_backbone_that_drops_at_random_is_refused(fc, rates):
    cfg = fc('refused')
    cfg.model.backbone.update(rates)
    cfg.cache_features = True
    with pytest.raises(UserError, match='at random'):
        train(cfg)


def test_a_random_pipeline_inside_another_data_set_is_refused(fc):
    cfg = random_config(fc, 'refused', cache_features=True)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    cfg.holdout = cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    with pytest.raises(UserError, match='RandomHorizontalFlip of the training pipeline is random'):
        train(cfg)


def test_more_views_than_epochs_are_refused(fc):
    with pytest.raises(UserError, match='5 views are more than 4 epochs'):
        train(random_config(fc, 'refused', cache_features=dict(views=5)))


@pytest.mark.parametrize('step', [dict(type='SampleFrames', num_clips=2, test_mode=True), dict(type='ThreeCrop')])
def test_several_clips_a_sample_are_refused_before_anything_is_written(fc, step):
    cfg = fc('refused', cache_features=True)
    cfg.train_dataloader.dataset.pipeline.insert(0, step)
    with pytest.raises(UserError, match='one clip per sample'):
        check_cache(cfg, build_model(cfg, meta=True))
    assert not Path(cfg.work_dir).exists()


@pytest.mark.parametrize('wrong', [dict(views=0), dict(views=True), dict(n=2), 3, 'yes', dict(views=2.5)])
def test_another_setting_is_refused(fc, wrong):
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
        cfg = prepare(path, Options(str(tmp_path / str(cache))))
        cfg.train_dataloader.dataset.pipeline[1].test_mode = True
        train(cfg)
        runs.append(weights(cfg))
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, atol=1e-5, rtol=1e-5)
