"""The video ViT from end to end: a VideoMAE config of Table 8, made small, on the demo's clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_experiment import PIPELINE, REPO, adapter, prepared

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine import experiment
from vpetl_mm.engine.experiment import train

SMALL = (
    "_base_ = '{repo}/configs/vit_{method}_videomae.py'\n"
    + PIPELINE
    + """\
_data = dict(data_prefix=dict(video='{root}'), num_classes=8, metainfo=None, pipeline=_pipeline)
train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(ann_file='{root}/target_train.txt', **_data))
val_dataloader = dict(num_workers=0, dataset=dict(ann_file='{root}/target_train.txt', **_data))
test_dataloader = dict(num_workers=0, dataset=dict(ann_file='{root}/target_test.txt', **_data))
model = dict(
    base=dict(file='{base}'),
    backbone=dict(img_size=32, patch_size=8, embed_dims=16, depth=2, num_heads=2),
    cls_head=dict(in_channels=16, num_classes=8),
)
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=2)
"""
)


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A pre-trained file as VideoMAE's authors write it: encoder, decoder, no fc_norm, no position table."""
    names = (('mlp.layers.0.0.', 'mlp.fc1.'), ('mlp.layers.1.', 'mlp.fc2.'), ('embed.projection', 'embed.proj'))
    out = {
        'decoder.norm.weight': torch.ones(8),
        'mask_token': torch.zeros(1, 1, 8),
        'encoder.norm.bias': torch.ones(16),
    }
    for key, value in state.items():
        if key != 'pos_embed' and not key.startswith('fc_norm'):
            for ours, theirs in names:
                key = key.replace(ours, theirs)  # noqa: PLW2901
            out[f'encoder.{key}'] = value
    return out


@pytest.fixture
def run(clips, tmp_path):
    """Prepares ``vit_<method>_videomae`` made small."""

    def make(method: str, folder: str = 'run'):
        base, path = tmp_path / 'videomae.pth', tmp_path / f'{method}.py'
        path.write_text(SMALL.format(repo=REPO, method=method, root=clips, base=base))
        if not base.exists():
            model = build_model(load_config(path, {'model.base': None, 'randomness.seed': 3}), init_weights=True)
            with model.plan.detached():
                torch.save({'model': published(model.backbone.state_dict())}, base)
        return prepared(path, tmp_path / folder)

    return make


@pytest.mark.parametrize('method', ['full_hmdb51', 'vpt_hmdb51', 'adaptformer_hmdb51_b64', 'bapat_hmdb51_b32'])
def test_trains_and_tests_from_the_published_naming(run, method):
    cfg = run(method)
    runner = train(cfg)
    trained = {n for n, p in runner.plain_model.named_parameters() if p.requires_grad}
    assert {'backbone.fc_norm.weight', 'backbone.fc_norm.bias'} <= trained, 'the file has none'
    assert ('cls_head.fc_cls.weight' in trained) == (method != 'bapat_hmdb51_b32'), 'as in Tables 7 and 8'
    run_dir, head = Path(cfg.work_dir), {k for k in runner.plain_model.state_dict() if k.startswith('cls_head.')}
    assert set(adapter(run_dir)) == trained | head
    scores = experiment.test(run(method, 'test'), run_dir / 'adapter_epoch_2.pth')
    assert scores == experiment.test(run(method, 'again'), run_dir / 'epoch_2.pth')
