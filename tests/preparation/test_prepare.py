"""The command as a whole: what it leaves, what it leaves alone, interruptions, and what it refuses."""

from __future__ import annotations

import json
import os
from itertools import product, takewhile
from pathlib import Path
from tempfile import gettempdir

import pytest
from trees import REAL, call, lines, put, snapshot, ssv2

from vpetl_mm import UserError
from vpetl_mm.datasets.petl_video_dataset import PETLVideoDataset
from vpetl_mm.preparation import prepare, sources

CLIPS = REAL / 'clips'


@pytest.fixture
def src(tmp_path):
    return ssv2(tmp_path / 'src', train=40)


@pytest.mark.parametrize(('share', 'seed'), [(0.1, 0), (0.25, 7), (0.001, 3)])
def test_the_held_out_part_is_what_training_holds_out(here, src, share, seed):
    assert call('ssv2', '--src', src, '--val', share, '--seed', seed) == 0
    out = here / 'data/ssv2'
    for part, held_out in (('train', False), ('val', True)):
        data = PETLVideoDataset(str(out / 'trainval.txt'), [], holdout=share, held_out=held_out, holdout_seed=seed)
        names = [data.get_data_info(i)['filename'] for i in range(len(data))]
        assert names == [line.split()[0] for line in lines(out / f'{part}.txt')]
    if (share, seed) == (0.1, 0):  # the draw of the tests of Holdout
        assert lines(out / 'val.txt') == [f'{100 + i}.webm {i % 3}' for i in (4, 11, 24, 27)]


def test_the_same_call_leaves_the_same_bytes(here, src):
    assert call('ssv2', '--src', src, '--sha256') == 0
    before = snapshot(here)
    assert call('ssv2', '--src', src, '--sha256', '--workers', 2) == 0
    assert snapshot(here) == before
    about = json.loads((here / 'data/ssv2/dataset.json').read_text())
    assert about['val'] | {'rule': ''} == dict(fraction=0.1, seed=0, rule='') and about['media'] == 'videos'
    assert about['counts'] == dict(trainval=40, train=36, val=4, test=6) and about['source'] == str(src)


def test_lists_of_an_earlier_check_go_with_the_lists_they_were_made_from(here, src):
    assert call('ssv2', '--src', src) == 0
    clean = put(here / 'data/ssv2/train_clean.txt', 'x 0\n')
    journal = put(here / 'data/ssv2/check.jsonl', '')
    assert call('ssv2', '--src', src) == 0 and clean.exists()
    assert call('ssv2', '--src', src, '--seed', 1) == 0 and not clean.exists() and journal.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason='another user can only be tried by root')
def test_an_unreadable_folder_is_named(here, src, capsys, monkeypatch):
    (src / '20bn-something-something-v2').chmod(0o700)
    for folder in (src, *takewhile(lambda p: p != Path(gettempdir()), src.parents)):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        assert call('ssv2', '--src', src) == 2
    finally:
        os.seteuid(0)
    said = capsys.readouterr().err
    assert '20bn-something-something-v2: Permission denied.' in said and 'Traceback' not in said


@pytest.mark.skipif(not CLIPS.exists(), reason='the real clips are not at hand')
def test_small_copies_take_the_place_of_the_videos(here, tmp_path, capsys):
    for name in ('walk', 'wave'):
        for i, clip in enumerate(sorted(CLIPS.glob('*wave*.avi'))):
            put(tmp_path / f'src/{name}/{i}.avi', clip.read_bytes())
    put(tmp_path / 'src/wave/broken.avi', b'no video')
    argv = ('mine', '--src', tmp_path / 'src', '--reencode', '--short-side', 64, '--workers', 2)
    assert call(*argv) == 0
    out = here / 'data/mine'
    listed = lines(out / 'trainval.txt') + lines(out / 'test.txt')
    assert sorted(listed) == [f'{n}/{i}.mp4 {label}' for label, n in enumerate(('walk', 'wave')) for i in range(3)]
    assert not (out / 'videos').is_symlink() and 'wave/broken.avi' in capsys.readouterr().out
    assert [line.split(',')[0] for line in lines(out / 'manifest.csv')[1:]] == sorted(v.split()[0] for v in listed)
    before = {p: p.stat().st_ino for p in (out / 'videos').rglob('*.mp4')}
    assert call(*argv) == 0 and {p: p.stat().st_ino for p in (out / 'videos').rglob('*.mp4')} == before
    assert call(*argv[:3], '--seed', 1) == 0 and (out / 'videos').readlink() == tmp_path / 'src'


@pytest.mark.skipif(not CLIPS.exists(), reason='the real clips are not at hand')
def test_what_cannot_be_copied_is_not_trained_on_and_counts_in_testing(here, tmp_path):
    clip = next(CLIPS.glob('*wave*.avi')).read_bytes()
    for part, name in product(('train', 'test'), ('walk', 'wave')):
        for i in range(2):
            put(tmp_path / f'src/{part}/{name}/{i}.avi', clip)
        put(tmp_path / f'src/{part}/{name}/broken.avi', b'no video')
    assert (
        call('mine', '--src', tmp_path / 'src', '--reencode', '--short-side', 64, '--workers', 1, '--val', 0.3) == 0
    )
    out = here / 'data/mine'
    assert len(lines(out / 'trainval.txt')) == 4 and not any('broken' in line for line in lines(out / 'trainval.txt'))
    broken = [line for line in lines(out / 'test.txt') if 'broken' in line]
    assert len(lines(out / 'test.txt')) == 6 and len(broken) == 2
    assert len(lines(out / 'unreadable.txt')) == 4
    assert call('mine', '--src', tmp_path / 'src') == 0 and not (out / 'unreadable.txt').exists()


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['hmbd51'], "did you mean 'hmdb51'?"),
        (['SSv2'], "did you mean 'ssv2'?"),
        (['check', 'foodl01'], "did you mean 'food101'?"),
        (['../mine'], 'is not a name for a data set'),
        (['check'], 'Give one NAME'),
        (['mine', 'yours'], 'Give one NAME'),
        (['mine'], '--src'),
        (['check', 'mine'], 'data/mine is not prepared'),
        (['mine', '--src', 'nowhere'], 'nowhere does not exist'),
        (['ssv2', '--src', '.', '--val', '1.5'], '--val must lie between 0 and 1'),
        (['ssv2', '--src', '.', '--val', 'nan'], '--val must lie between 0 and 1'),
        (['ssv2', '--src', '.', '--test', '0.1'], '--test is for data of your own'),
        (['ssv2', '--src', '.', '--classes', 'x'], '--classes is for data of your own'),
        (['ssv2', '--src', '.', '--split', '2'], '--split is for hmdb51'),
        (['ssv2', '--src', '.', '--short-side', '128'], '--reencode'),
        (['ssv2', '--src', '.', '--reencode', '--short-side', '2'], 'at least 16 pixels'),
        (['svhn', '--src', '.', '--reencode'], 'svhn has images'),
        (['ssv2', '--src', '.', '--seed', '-1'], '--seed must be at least 0'),
        (['ssv2', '--src', '.', '--workers', '0'], '--workers must be at least 1'),
    ],
)
def test_wrong_calls_are_refused(refused, argv, said):
    assert said in refused(*argv)


def test_a_test_share_where_there_is_a_test_list(refused, tmp_path):
    for part in ('train', 'test'):
        for i in range(3):
            put(tmp_path / f'src/{part}/walk/{i}.mp4')
    assert 'leave it out' in refused('mine', '--src', tmp_path / 'src', '--test', '0.2')


def test_an_interruption_says_that_the_call_can_be_repeated(here, src, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, 'write_manifest', interrupt)
    with pytest.raises(SystemExit) as left:
        call('ssv2', '--src', src)
    assert left.value.code == 130 and 'the same command goes on' in capsys.readouterr().err
    assert not (here / 'data/ssv2').exists()


def test_own_names_may_be_anything_else():
    for name in ('ucf101', 'my-clips_2', 'k400', 'hmdb51_mine'):
        sources.check_name(name)
    with pytest.raises(UserError):
        sources.check_name('cifar10')
