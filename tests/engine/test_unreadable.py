"""Videos that cannot be decoded: skipped and named in training, wrong in testing, never too many."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from small_experiment import prepared, write_config

from vpetl_mm import UserError
from vpetl_mm.engine.experiment import test as run_test
from vpetl_mm.engine.experiment import train


@pytest.fixture
def broken(clips, tmp_path):
    """A copy of the clips with one broken training clip and one broken test clip."""
    root = tmp_path / 'clips'
    shutil.copytree(clips, root)
    for split in ('target_train', 'target_test'):
        (root / f'clips/{split}/00003.mp4').write_bytes(b'no video')
    path = write_config(root, tmp_path / 'broken.py')
    return partial(prepared, path, tmp_path / 'run')


def test_more_than_a_percent_ends_the_run(broken):
    with pytest.raises(UserError, match=r'1 of the 24 videos .*00003\.mp4'):
        train(broken())


def test_fewer_are_skipped_and_named(broken, tmp_path):
    train(broken(default_hooks__unreadable_video__max_share=0.1))
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert log.count('cannot be decoded, skipped') == 1 and '00003.mp4' in log
    assert '1 videos could not be decoded' in log


def test_in_testing_it_counts_as_wrong(broken, tmp_path, monkeypatch):
    """A model that always answers with the broken clip's label is right on that class's other clips alone."""
    from vpetl_mm.models.video_head import PETLVideoHead

    cfg = broken(default_hooks__unreadable_video__max_share=0.1, train_cfg__max_epochs=1)
    train(cfg)
    label = int((tmp_path / 'clips/target_test.txt').read_text().splitlines()[3].split()[1])
    always = torch.nn.functional.one_hot(torch.tensor(label), 8).float()
    monkeypatch.setattr(PETLVideoHead, 'forward', lambda self, x, **_: always.expand(len(x), -1))
    labels = [int(line.split()[1]) for line in (tmp_path / 'clips/target_test.txt').read_text().splitlines()]
    scores = run_test(cfg, tmp_path / 'run/adapter_epoch_1.pth', str(tmp_path / 'p.csv'))
    assert scores['acc/top1'] == pytest.approx(100 * (labels.count(label) - 1) / 12)
    row = (tmp_path / 'p.csv').read_text().splitlines()[4].split(',')
    assert row[0].endswith('00003.mp4') and row[1] == str(label) and row[2:4] == ['', '0']
