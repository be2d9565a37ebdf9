"""The test views of the paper's configs on real clips: 4 in time x 3 in space, and they differ."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope

from vpetl_mm.config import load_config

REPO = Path(__file__).parents[2]
CLIPS = REPO.parent / 'shared/data/clips'

pytestmark = pytest.mark.skipif(not CLIPS.exists(), reason='the real clips are not at hand')


def sample(tmp_path, clip: str, loader: str, config: str = 'swin_bapat_ssv2_b128') -> torch.Tensor:
    (tmp_path / 'list.txt').write_text(f'{clip} 57\n')
    cfg = load_config(REPO / f'configs/{config}.py')[loader].dataset
    cfg.update(ann_file=str(tmp_path / 'list.txt'), data_prefix=dict(video=str(CLIPS)), metainfo={})
    with DefaultScope.overwrite_default_scope('mmaction'):
        return DATASETS.build(cfg)[0]['inputs']


@pytest.mark.parametrize(
    ('config', 'frames'), [('swin_bapat_ssv2_b128', 8), ('swin_bapat_ssv2_b128_f16', 16)], ids=['f8', 'f16']
)
def test_twelve_views_that_differ(tmp_path, config, frames):
    views = sample(tmp_path, 'ssv2_166766.mp4', 'test_dataloader', config)
    assert views.shape == (12, 3, frames, 224, 224)
    assert all(not torch.equal(views[i], views[j]) for i, j in combinations(range(12), 2))


def test_a_training_clip_has_the_recipes_shape(tmp_path):
    assert sample(tmp_path, 'ssv2_166766.mp4', 'train_dataloader').shape == (1, 3, 8, 224, 224)
