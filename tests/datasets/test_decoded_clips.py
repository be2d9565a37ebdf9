"""Clips decoded once: the same numbers as from their files, in a file that is made again when it is not whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope

from vpetl_mm.config import load_config
from vpetl_mm.datasets.decoded_clips import decode_clips
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.errors import UserError

REPO = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, and a list of them."""
    root = tmp_path_factory.mktemp('clips')
    make_demo_clips(root, dict(target_train=12), progress=False)
    return root


def dataset(root: Path, **settings):
    """The demo's own data set, its pipeline and all, on the clips of ``root``."""
    cfg = load_config(REPO / 'configs/demo_bapat.py').train_dataloader.dataset
    cfg.update(ann_file=str(root / 'target_train.txt'), data_prefix=dict(video=str(root)), **settings)
    cfg.metainfo = dict(classes=str(root / 'target_classes.txt'))
    with DefaultScope.overwrite_default_scope('mmaction'):
        return DATASETS.build(cfg)


def decoded(root: Path, **settings):
    return dataset(root, type='DecodedVideoDataset', **settings)


def decode(root: Path) -> Path:
    return decode_clips(root / 'target_train.txt', root)


def test_decoded_once_is_bit_for_bit_what_decord_decodes(root):
    file = decode(root)
    made = file.stat().st_mtime_ns
    assert decode(root) == file and file.stat().st_mtime_ns == made, 'it is made once'
    for settings in ({}, dict(test_mode=True), dict(indices=5)):
        plain, once = dataset(root, **settings), decoded(root, **settings)
        assert len(plain) == len(once) == settings.get('indices', 12)
        for i in range(len(plain)):
            a, b = plain[i], once[i]
            assert a['inputs'].dtype == b['inputs'].dtype == torch.uint8 and torch.equal(a['inputs'], b['inputs'])
            assert a['data_samples'].gt_label == b['data_samples'].gt_label
            assert a['data_samples'].metainfo == b['data_samples'].metainfo


def test_a_file_that_is_not_whole_is_refused_and_made_again(root):
    file = decode(root)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for broken in (b'', whole[:-1000], whole[:40], bytes(flipped)):
        file.write_bytes(broken)
        with pytest.raises(UserError, match='make demo'):
            decoded(root)
        decode(root)
        assert file.read_bytes() == whole


def test_an_interruption_leaves_nothing_and_other_clips_are_decoded_again(root):
    file, clip, other = decode(root), root / 'clips/target_train/00007.mp4', root / 'clips/target_train/00000.mp4'
    first, kept = file.read_bytes(), clip.read_bytes()
    file.unlink()
    clip.write_bytes(b'half a clip')
    with pytest.raises(UserError, match='00007'):
        decode(root)
    assert [p.name for p in root.iterdir() if 'decoded' in p.name] == []
    clip.write_bytes(kept)
    assert decode(root).read_bytes() == first
    clip.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match='other clips'):
        decoded(root)
    assert decode(root).read_bytes() != first, 'the list is the same, a clip is not'
    clip.write_bytes(kept)
