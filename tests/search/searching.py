"""A small search: 24 clips to train on, 12 to test on, a Video Swin of 40,000 parameters, two epochs."""

from __future__ import annotations

import sys
from pathlib import Path

from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.engine.record import Record, write_record
from vpetl_mm.search.trial import RESULT

sys.path.append(str(Path(__file__).parents[1] / 'engine'))

from small_experiment import write_config

EXTRA = """
model['base'] = None
val_dataloader = dict(
    batch_size=8, num_workers=0, dataset=dict(ann_file='{root}/target_train.txt', data_prefix=dict(video='{root}')))
train_dataloader['num_workers'] = test_dataloader['num_workers'] = 0
optim_wrapper = dict(optimizer=dict(lr=0.01))
search = {{'optim_wrapper.optimizer.lr': 'log(1e-3,1e-1)', 'model.petl.deltas.patt.d_bottle': [4, 8]}}
"""
LR, WIDTH = 'optim_wrapper.optimizer.lr', 'model.petl.deltas.patt.d_bottle'


def leave_result(folder: Path, top1: float) -> None:
    """The result that a trial's run leaves."""
    scores = dict(top1=top1, top5=100.0, mean_class=top1, params=1, total=2, epoch=2, samples=5)
    write_record(folder, Record('small', 0, checkpoint='a.pth', finished='2026-01-01T00:00:00', **scores), RESULT)


def write_experiment(root: Path, extra: str = '', name: str = 'small') -> Path:
    """The clips, where they are not there yet, and a config with a ``search``; ``extra`` is appended."""
    if not (root / 'target_train.txt').exists():
        make_demo_clips(root, dict(target_train=24, target_test=12), progress=False)
    return write_config(root, root / f'{name}.py', extra=EXTRA.format(root=root) + extra)
