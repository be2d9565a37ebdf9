"""Models of timm and of Hugging Face from end to end: their configs, made small, on the demo's clips."""

from __future__ import annotations

import foreign
import pytest
from mmengine import Config
from small_experiment import PIPELINE, REPO, adapter, prepared

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train

SMALL = (
    "_base_ = '{repo}/configs/{config}.py'\n"
    + PIPELINE
    + """\
_data = dict(data_prefix=dict(video='{root}'), num_classes=8, metainfo=None, pipeline=_pipeline)
train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(ann_file='{root}/target_train.txt', **_data))
val_dataloader = dict(num_workers=0, dataset=dict(ann_file='{root}/target_train.txt', **_data))
test_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(ann_file='{root}/target_test.txt', **_data))
model = dict(base=None, backbone={backbone}, cls_head=dict(in_channels=32, num_classes=8))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=1)
randomness = dict(seed=0)
"""
)
BACKBONES = {
    'timmvits14_bapat_hmdb51_b64_dinov2_fc': dict(foreign.timm_backbone(), _delete_=True),
    'hfvitl_bapat_ssv2_b64_f16_vjepa2': dict(config=foreign.HF['vjepa2'], img_size=32, frames=8),
}


@pytest.fixture
def small(clips, tmp_path):
    """Prepares a config made small, with options."""

    def make(config: str, **options) -> Config:
        path = tmp_path / f'{config}.py'
        path.write_text(SMALL.format(repo=REPO, config=config, root=clips, backbone=BACKBONES[config]))
        return prepared(path, tmp_path / 'run', **options)

    return make


@pytest.mark.parametrize('config', BACKBONES)
def test_trains_and_its_adapter_gives_what_the_whole_model_gives(small, tmp_path, config):
    cfg = small(config)
    runner = train(cfg)
    trained = {n for n, p in runner.plain_model.named_parameters() if p.requires_grad}
    own = {n for n in adapter(tmp_path / 'run', 1) if '.bn.' not in n}
    assert own == trained and all(n.startswith(('backbone.model.', 'cls_head.')) for n in own)
    scores = [run_test(cfg, tmp_path / 'run' / f'{kind}_1.pth') for kind in ('adapter_epoch', 'epoch')]
    assert scores[0] == scores[1]


@pytest.mark.parametrize('config', BACKBONES)
def test_clips_of_another_size_are_refused_before_anything_is_written(small, tmp_path, config):
    clips = dict(type='Resize', scale=(40, 40), keep_ratio=False)
    pipeline = small(config).train_dataloader.dataset.pipeline
    with pytest.raises(UserError, match=r'40 x 40.*img_size'):
        train(small(config, train_dataloader__dataset__pipeline=[*pipeline[:3], clips, *pipeline[3:]]))
    assert not (tmp_path / 'run').exists()
