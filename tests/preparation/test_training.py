"""From a folder of one's own to a trained adapter: what the command prints is a config that trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numbered import write
from PIL import Image
from trees import REPO, call, lines

from vpetl_mm.engine.experiment import Options, prepare, train
from vpetl_mm.engine.experiment import test as run_test

SHORT = """
train_dataloader.update(batch_size=4, num_workers=0)
val_dataloader.update(batch_size=4, num_workers=0)
test_dataloader.update(batch_size=4, num_workers=0)
train_cfg = dict(max_epochs=1)
param_scheduler = []
"""
TINY_IMAGE = """
_arch = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
model.update(base=None, backbone=dict(arch=_arch))
model['head'].update(in_channels=32)
"""
TINY_VIDEO = """
_arch = dict(_delete_=True, embed_dims=16, depths=[1, 1], num_heads=[1, 2])
model.update(base=None, backbone=dict(arch=_arch, out_indices=(1,)))
model['cls_head'].update(in_channels=32)
"""


def images(folder: Path) -> None:
    """Two classes of twelve images."""
    for label, value in (('dark', 20), ('light', 220)):
        (folder / label).mkdir(parents=True)
        for n in range(12):
            noise = np.random.default_rng(n).integers(0, 20, (40, 50, 3))
            Image.fromarray((value + noise).astype(np.uint8)).save(folder / label / f'{n}.png')


def videos(folder: Path) -> None:
    """Two classes of twelve clips."""
    for label in ('left', 'right'):
        for n in range(12):
            write(folder / label / f'{n}.mp4', count=18)


@pytest.mark.parametrize(('make', 'tiny'), [(images, TINY_IMAGE), (videos, TINY_VIDEO)])
def test_the_printed_config_trains_validates_and_tests(here, tmp_path, capsys, make, tiny):
    make(tmp_path / 'src')
    assert call('mine', '--src', tmp_path / 'src') == 0
    printed = capsys.readouterr().out.partition('with these lines in it:\n\n')[2]
    text = printed.replace("_base_ = '..", f"_base_ = '{REPO}/configs")
    (here / 'mine.py').write_text(text + tiny + SHORT)
    cfg = prepare(here / 'mine.py', Options(str(tmp_path / 'run')))
    runner = train(cfg)
    sizes = [len(lines(here / f'data/mine/{part}.txt')) for part in ('train', 'val', 'test')]
    assert [len(loop.dataloader.dataset) for loop in (runner.train_loop, runner.val_loop)] == sizes[:2]
    assert list(Path(cfg.work_dir).glob('best_acc_top1_epoch_1.pth'))
    scores = run_test(
        prepare(here / 'mine.py', Options(str(tmp_path / 'run'))), f'{cfg.work_dir}/adapter_epoch_1.pth'
    )
    assert 0 <= scores['acc/top1'] <= 100 and sizes[2] == 4
