"""The config of a small experiment, which inherits the demo's."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).parents[2]

CONFIG = """\
_base_ = '{repo}/configs/demo_{method}.py'
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(ann_file='{root}/target_train.txt', data_prefix=dict(video='{root}')))
test_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(ann_file='{root}/target_test.txt', data_prefix=dict(video='{root}')))
model = dict(
    base=dict(file='{root}/base.pth'),
    backbone=dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])),
    cls_head=dict(in_channels=16))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
auto_scale_lr = dict(enable=False, base_batch_size=256)
train_cfg = dict(max_epochs=2)
"""
# all frames of the demo's clips, for configs of other data sets
PIPELINE = """\
_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
"""


def write_config(root: Path, path: Path, method: str = 'bapat', extra: str = '') -> Path:
    """A config file of the small experiment; ``extra`` is appended."""
    path.write_text(CONFIG.format(repo=REPO, root=root, method=method) + extra)
    return path
