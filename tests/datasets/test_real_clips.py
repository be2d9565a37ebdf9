"""Clips as they are found: each decodes, and has finite logits through the test pipelines of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
from building import REPO, build
from mmengine.dataset import pseudo_collate
from numbered import write
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.config import load_config

CLIPS = REPO.parent / 'shared/data/clips'
FILES = sorted(CLIPS.glob('*')) if CLIPS.is_dir() else []
CONFIGS = {
    'ssv2': 'swin_bapat_ssv2_b128',
    'hmdb51': 'swin_bapat_hmdb51_b128',
    'hmdb51 32 frames': 'swin_bapat_hmdb51_b128_f32',
}
SMALL = {
    'model.base': None,
    'model.backbone.arch': dict(_delete_=True, embed_dims=8, depths=[1, 1], num_heads=[1, 2]),
    'model.backbone.patch_size': (2, 16, 16),
    'model.backbone.out_indices': (1,),
    'model.cls_head.in_channels': 16,
    'randomness.seed': 0,
}


@cache
def experiment(name: str) -> tuple[nn.Module, dict]:
    """A small Video Swin instead of the experiment's, and its test data set's config."""
    cfg = load_config(REPO / f'configs/{CONFIGS[name]}.py', SMALL)
    return build_model(cfg, init_weights=True).eval(), cfg.test_dataloader.dataset


def views_and_logits(name: str, video: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The views of a clip and its logits: its list, the data set, preprocessor, model and head of an experiment."""
    model, dataset = experiment(name)
    (folder / 'list.txt').write_text(f'{video.name} 1\n')
    found = dict(dataset, ann_file=str(folder / 'list.txt'), data_prefix=dict(video=str(video.parent)), metainfo=None)
    sample = build(found, 'mmaction')[0]
    assert not sample['data_samples'].metainfo['skipped']
    (answer,) = model.test_step(pseudo_collate([sample]))
    return sample['inputs'], answer.pred_score


def check(name: str, video: Path, folder: Path) -> torch.Tensor:
    """Refuse logits that are not finite, and views that are not those of the experiment; the views."""
    views, scores = views_and_logits(name, video, folder)
    frames = 32 if '32' in name else 8
    assert views.shape == (12, 3, frames, 224, 224) and views.dtype == torch.uint8
    assert scores.shape == (174 if name == 'ssv2' else 51,) and scores.isfinite().all() and scores.std() > 0
    return views


@pytest.mark.skipif(not FILES, reason='needs ../shared/data/clips')
@pytest.mark.parametrize('name', ['ssv2', 'hmdb51'])
@pytest.mark.parametrize('video', FILES, ids=[p.name[:20] for p in FILES])
def test_every_real_clip_has_finite_logits(video, name, tmp_path):
    views = check(name, video, tmp_path).float()
    assert views.std() > 10, 'a picture'
    assert (views[0] - views[9]).abs().mean() > 1, 'the first and the last quarter differ'
    assert (views[0] - views[2]).abs().mean() > 1, 'left and right differ'
    assert all(not torch.equal(one, two) for one, two in combinations(views, 2)), '4 in time, 3 in space'


@pytest.mark.skipif(not FILES, reason='needs ../shared/data/clips')
@pytest.mark.parametrize('name', ['ssv2_166766.mp4', 'TrumanShow_wave_f_nm_np1_fr_med_26.avi'])
def test_a_real_clip_shorter_than_the_window(name, tmp_path):
    """49 and 48 frames, where 32 at stride 2 ask for 63."""
    check('hmdb51 32 frames', CLIPS / name, tmp_path)


def latin(folder: Path) -> Path:
    """A title in Latin-1, as in HMDB51's files: ä, ö and ü are no UTF-8."""
    path = write(folder / 'latin.avi', 'mpeg4', 20, title='title-title')
    path.write_bytes(path.read_bytes().replace(b'title-title', b't\xe4tle-t\xfctl\xd6'))
    assert b't\xe4tle' in path.read_bytes()
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    'one frame': lambda f: write(f / 'one.mp4', count=1),
    'three frames': lambda f: write(f / 'three.mp4', count=3),
    'as long as the window': lambda f: write(f / 'window.mp4', count=16),
    'odd width and height': lambda f: write(f / 'odd.mp4', count=20, pix_fmt='yuv444p', size=(97, 55)),
    'portrait': lambda f: write(f / 'portrait.mp4', count=20, size=(48, 120)),
    'tiny': lambda f: write(f / 'tiny.avi', 'mpeg4', 20, size=(16, 12)),
    'wide': lambda f: write(f / 'wide.mkv', count=20, size=(320, 32)),
    'vp9': lambda f: write(f / 'vp9.webm', 'libvpx-vp9', 20, size=(86, 48), rate=12),
    'a fractional rate': lambda f: write(f / 'ntsc.mp4', count=20, rate=Fraction(30000, 1001)),
    'metadata in Latin-1': latin,
    'a name of spaces and umlauts': lambda f: write(f / 'zwei Wörter #1 (2).mp4', count=20),
}


@pytest.mark.parametrize('make', KINDS.values(), ids=KINDS)
def test_every_odd_clip_has_finite_logits(make, tmp_path):
    check('hmdb51', make(tmp_path), tmp_path)
