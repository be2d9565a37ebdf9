"""The pipelines of the configs against the same ones with mmaction2's own transforms, on the real clips."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import decord
import numpy as np
import pytest
from building import REPO, build_listed, build_transform
from numbered import write
from trees import REAL as DATA

from vpetl_mm.config import load_config

SSV2 = 'swin_bapat_ssv2_b128'
REAL = [*sorted((DATA / 'clips').glob('*')), *sorted((DATA / 'fight_surv').glob('*/*'))]
needs_clips = pytest.mark.skipif(not REAL, reason='needs ../shared/data')
STOCK = {'OpenVideo': 'DecordInit', 'DecodeVideo': 'DecordDecode'}


@cache
def pipeline(config: str, loader: str, stock: bool) -> list:
    """The transforms up to the packing."""
    steps = load_config(REPO / f'configs/{config}.py')[loader].dataset.pipeline
    kinds = [STOCK.get(step.type, step.type) if stock else step.type for step in steps]
    assert set(kinds) & set(STOCK if not stock else STOCK.values()), 'the configs use what is compared'
    return [build_transform(dict(s, type=kind), 'mmaction') for s, kind in zip(steps, kinds, strict=True)][:-1]


def load(path: Path, steps: list, seed: int) -> dict:
    random.seed(seed)
    np.random.seed(seed)
    results = dict(filename=str(path), label=0, start_index=0, modality='RGB')
    for step in steps:
        results = step(results)
    return results


@pytest.fixture
def in_order(monkeypatch):
    """decord's random access gives earlier frames than were asked for in some avi files; its reading in order not."""

    class InOrder(decord.VideoReader):
        def get_batch(self, indices):
            frames = [self[i].asnumpy() for i in range(max(indices) + 1)]
            return decord.nd.array(np.stack([frames[i] for i in indices]))

    monkeypatch.setattr(decord, 'VideoReader', InOrder)


@needs_clips
@pytest.mark.usefixtures('in_order')
@pytest.mark.parametrize('path', REAL, ids=lambda p: p.stem)
def test_training_clips_are_the_stock_ones(path):
    ours, stock = (pipeline(SSV2, 'train_dataloader', stock) for stock in (False, True))
    seed = REAL.index(path)
    got, expected = (load(path, steps, seed) for steps in (ours, stock))
    assert_same(got, expected)
    assert got['imgs'].shape == (1, 3, 8, 224, 224) and got['imgs'].dtype == np.uint8


def assert_same(got: dict, expected: dict) -> None:
    """The same frames, crops and keys for what comes later, and pixels within one grey level."""
    assert got['total_frames'] == expected['total_frames']
    assert got['avg_fps'] == pytest.approx(expected['avg_fps'])
    assert got['frame_inds'].tolist() == expected['frame_inds'].tolist()
    assert np.array_equal(got.get('crop_bbox'), expected.get('crop_bbox'))
    assert set(expected) == set(got)
    for key in ('img_shape', 'original_shape', 'clip_len', 'num_clips', 'input_shape'):
        assert got[key] == expected[key], key
    assert np.abs(got['imgs'].astype(int) - expected['imgs']).max() <= 1


@needs_clips
@pytest.mark.usefixtures('in_order')
@pytest.mark.parametrize('loader', ['val_dataloader', 'test_dataloader'])
@pytest.mark.parametrize(
    ('config', 'path'),
    [('swin_bapat_hmdb51_b128', path) for path in REAL[::12]]
    + [('swin_bapat_hmdb51_b128_f16', path) for path in REAL[3::20]],
    ids=lambda value: getattr(value, 'stem', value),
)
def test_views_are_the_stock_ones(config, path, loader):
    ours, stock = (load(path, pipeline(config, loader, stock), 0) for stock in (False, True))
    assert_same(ours, stock)
    assert loader == 'val_dataloader' or ours['imgs'].shape == (12, 3, 16 if 'f16' in config else 8, 224, 224)


@needs_clips
def test_plain_decord_agrees_where_it_finds_its_frames():
    paths = [path for path in REAL if path.suffix == '.mp4'][::8]
    ours, stock = (pipeline('swin_bapat_hmdb51_b128', 'train_dataloader', stock) for stock in (False, True))
    for path in paths:
        assert_same(*(load(path, steps, 3) for steps in (ours, stock)))


@pytest.mark.parametrize('broken', [b'', b'no video'], ids=['empty', 'text'])
def test_unreadable_videos_are_skipped_and_named(tmp_path, broken):
    write(tmp_path / 'whole.mp4', 'libx264', 20)
    (tmp_path / 'broken.mp4').write_bytes(broken)
    lines = 'broken.mp4 3\nwhole.mp4 1\n'
    tested = build_listed(tmp_path, lines, SSV2, 'test_dataloader')[0]['data_samples']
    assert tested.gt_label.item() == 3 and 'broken.mp4' in tested.skipped[0]
    random.seed(0)
    np.random.seed(0)
    trained = build_listed(tmp_path, lines, SSV2, 'train_dataloader')[0]['data_samples']
    assert trained.gt_label.item() == 1 and 'broken.mp4' in trained.skipped[0]
    assert build_listed(tmp_path, lines, SSV2, 'train_dataloader')[1]['data_samples'].img_shape == (224, 224)


def test_a_name_without_a_suffix_is_an_mp4_file(tmp_path):
    write(tmp_path / 'clip.mp4', 'libx264', 20)
    assert build_listed(tmp_path, 'clip 5\n', SSV2, 'train_dataloader')[0]['inputs'].shape == (1, 3, 8, 224, 224)


def test_names_may_be_any_bytes(tmp_path):
    name = b'caf\xe9 100%?.mp4'
    os.rename(write(tmp_path / 'clip.mp4', 'libx264', 20), tmp_path / os.fsdecode(name))
    sample = build_listed(tmp_path, name + b' 5\n', SSV2, 'train_dataloader')[0]
    assert 'skipped' not in sample['data_samples'].metainfo


FRESH = """
import multiprocessing, os, resource, runpy, sys
import numpy as np
keep = runpy.run_path(sys.argv[1])['keep_freed_memory'] if len(sys.argv) > 1 else lambda process: None
def clips():
    kept = keep(os.getpid())
    for turn in range(40):
        if turn == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        clip = [np.ones((400, 400, 3), np.uint8) for _ in range(8)]
        del clip
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
assert not keep(os.getpid()), 'the training process itself'
multiprocessing.get_context('fork').Process(target=clips).start()
"""


def test_a_worker_keeps_its_memory_and_the_training_process_is_left_alone():
    file = REPO / 'vpetl_mm/datasets/worker_memory.py'
    results = []
    for arguments in ([], [str(file)]):
        command = [sys.executable, '-c', FRESH, *arguments]
        results += subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (_, faults), (kept, fewer) = (line.split() for line in results)
    if kept == 'False':
        pytest.skip('no glibc')
    assert int(fewer) < 200 < int(faults)
