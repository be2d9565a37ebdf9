"""Training over ranks: what travels, what is validated, and a rank that dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from ranks import over_ranks
from small_experiment import PIPELINE, QUICK, REPO, prepared
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.hooks.ema_hook import EMAHook

BATCHNORM = (
    "_base_ = '{repo}/configs/vit_bapat_ssv2_b32_videomae.py'\n"
    + PIPELINE
    + """\
_data = dict(
    ann_file='{root}/target_train.txt', data_prefix=dict(video='{root}'), num_classes=8, metainfo=None,
    pipeline=_pipeline)
train_dataloader = dict(batch_size=3, num_workers=0, dataset=_data)
val_dataloader = dict(batch_size=2, num_workers=0, dataset=_data)
test_dataloader = dict(batch_size=2, num_workers=0, dataset=_data)
holdout = dict(fraction=0.3)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
model = dict(
    base=None,
    backbone=dict(img_size=32, patch_size=8, embed_dims=16, depth=1, num_heads=2),
    cls_head=dict(in_channels=16, num_classes=8),
)
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=2)
"""
)


class Traffic(Hook):
    """Counts the bytes that DDP hands over."""

    def __init__(self) -> None:
        self.bytes = 0

    def before_train(self, runner) -> None:
        assert not runner.model.broadcast_buffers
        runner.model.register_comm_hook(None, self._count)

    def _count(self, _, bucket):
        self.bytes += bucket.buffer().numel() * bucket.buffer().element_size()
        return allreduce_hook(None, bucket)


def test_the_deltas_alone_travel_and_every_rank_validates_what_is_saved(clips, tmp_path):
    config = tmp_path / 'bn.py'
    config.write_text(BATCHNORM.format(repo=REPO, root=clips))

    def on(rank: int) -> dict:
        traffic = Traffic()
        runner = train(prepared(config, tmp_path / 'run', launcher='pytorch'), [traffic])
        info, count = runner.message_hub.runtime_info, runner.plain_model.plan.count()
        return dict(
            trained=count['trainable'],
            share=count['trainable'] / count['total'],
            bytes_a_step=traffic.bytes / runner.iter,
            best=(info['best_score'], Path(info['best_ckpt']).name),
            lr=runner.optim_wrapper.optimizer.param_groups[0]['lr'],
            statistics=runner.plain_model.cls_head.bn.running_mean.tolist(),
            averages=[
                float(p.sum()) for h in runner.hooks if isinstance(h, EMAHook) for p in h.ema_model.parameters()
            ],
        )

    first, second = over_ranks(2, on)
    assert isinstance(first, dict), first
    assert first == second
    assert first['averages'] and first['bytes_a_step'] == 4 * first['trained'] and first['share'] < 0.5
    assert first['lr'] == pytest.approx(0.1 * 3 * 2 / 256)
    cfg = prepared(config, tmp_path / 'run')
    cfg.test_dataloader = cfg.val_dataloader
    score, name = first['best']
    assert run_test(cfg, tmp_path / 'run' / name)['acc/top1'] == pytest.approx(score)


class Dies(Hook):
    """Ends its process as a machine that fails does."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.rank == 1 and runner.epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_when_a_rank_dies_the_others_end_and_the_last_epoch_is_whole(ready, tmp_path):
    def on(rank: int) -> None:
        train(ready(launcher='pytorch', **QUICK), [Dies()])

    ended, dead = over_ranks(2, on)
    assert dead is None and 'RuntimeError' in ended, ended
    assert {p.name for p in (tmp_path / 'run').glob('*.pth*')} == {'epoch_1.pth'}
    train(ready(resume='auto', resume_with='new', **QUICK))
    assert (tmp_path / 'run/adapter_epoch_2.pth').exists()
