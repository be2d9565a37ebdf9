"""Small copies hold the same frames, are made once, and survive whatever happens to the run."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import decord
import numpy as np
import pytest
from numbered import shown, truncate, write
from trees import REAL

from vpetl_mm import UserError
from vpetl_mm.preparation.reencode import copy_names, reencode
from vpetl_mm.preparation.small_copy import is_finished, make_copy, small_size

CLIPS = sorted((REAL / 'clips').glob('*')) if (REAL / 'clips').is_dir() else []
FEW = [c for c in CLIPS if c.name.startswith(('ssv2', 'Truman', 'mmaction2'))]
needs_clips = pytest.mark.skipif(not CLIPS, reason='needs ../shared/data/clips')
write_video = partial(write, count=20, size=(96, 64), sound=True)


@pytest.fixture
def source(tmp_path) -> Path:
    for name, rate in (('a/x.mp4', 25), ('a/x.avi', Fraction(30000, 1001)), ('b c/ü.mkv', 12)):
        write_video(tmp_path / 'source' / name, rate=rate)
    return tmp_path / 'source'


PATHS = ['a/x.mp4', 'b c/ü.mkv', 'a/x.avi']


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_the_copies_hold_the_same_frames(source, tmp_path, capsys):
    target = tmp_path / 'target'
    names = reencode(PATHS, source, target, 40, workers=2)
    assert names == ['a/x.mp4.mp4', 'b c/ü.mp4', 'a/x.avi.mp4'] and set(files(target)) == set(names)
    for path, name in zip(PATHS, names, strict=True):
        assert shown(source / path) == shown(target / name) == list(range(20))
        with av.open(str(target / name)) as copy, av.open(str(source / path)) as original:
            assert copy.streams.video[0].average_rate == original.streams.video[0].average_rate
            assert (copy.streams.video[0].width, copy.streams.video[0].height) == (60, 40)
            assert original.streams.audio and not copy.streams.audio
    said = capsys.readouterr()
    assert '3 videos re-encoded, 0 existed' in said.out


def test_any_clip_starts_near_a_key_frame(source, tmp_path):
    write_video(source / 'a/x.mp4', count=60)
    [name] = reencode(['a/x.mp4'], source, tmp_path / 'target', 64, workers=1)
    content = (tmp_path / 'target' / name).read_bytes()
    assert content.index(b'moov') < content.index(b'mdat'), 'the index comes first'
    with av.open(str(tmp_path / 'target' / name)) as copy:
        packets = [p for p in copy.demux(video=0) if p.size]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        assert keys == list(range(0, 60, 8))
        assert [p.pts for p in packets] == sorted(p.pts for p in packets), 'no B-frames'
        assert copy.streams.video[0].codec_context.format.name == 'yuv420p'


@needs_clips
@pytest.mark.parametrize('clip', FEW, ids=lambda c: c.name[:8])
def test_real_clips_stay_what_decord_reads(clip, tmp_path):
    """Also avi files with a packet more than frames, where decord repeats the last."""
    make_copy(clip, tmp_path / 'copy.mp4', 128, '')
    before, after = (decord.VideoReader(str(f), num_threads=1) for f in (clip, tmp_path / 'copy.mp4'))
    assert len(before) == len(after) and before.get_avg_fps() == pytest.approx(after.get_avg_fps())
    height, width = after[0].shape[:2]
    assert min(height, width) == 128 and width / height == pytest.approx(
        before[0].shape[1] / before[0].shape[0], 0.01
    )
    before.seek(0)
    for index in range(len(before)):
        frame = cv2.resize(before.next().asnumpy(), (width, height), interpolation=cv2.INTER_AREA)
        error = np.mean((frame.astype(float) - after[index].asnumpy()) ** 2)
        assert 10 * np.log10(255**2 / error) > 30, f'frame {index}'


@needs_clips
def test_a_real_clip_that_ends_early_is_refused(tmp_path):
    """Nothing in its frames tells; its header promises 49."""
    [clip] = [c for c in FEW if c.suffix == '.avi']
    with pytest.raises(ValueError, match=r'only 2[0-9] of 49 frames'):
        make_copy(truncate(clip, tmp_path / 'cut.avi'), tmp_path / 'copy.mp4', 128, '')
    assert not list(tmp_path.glob('*.mp4'))


@pytest.mark.parametrize(
    ('size', 'short', 'wanted'),
    [
        ((427, 240), 256, (426, 240)),
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 256, (256, 456)),
        ((341, 257), 256, (340, 256)),
        ((3, 2), 256, (2, 2)),
        ((640, 360), 15, (26, 16)),
    ],
)
def test_sizes_are_even_and_never_larger(size, short, wanted):
    assert small_size(*size, short) == wanted


def test_one_frame_and_odd_rates(tmp_path):
    write_video(tmp_path / 'x.mp4', count=1, rate=Fraction(2397, 100))
    make_copy(tmp_path / 'x.mp4', tmp_path / 'copy.mp4', 64, '')
    assert shown(tmp_path / 'copy.mp4') == [0]
    write_video(tmp_path / 'x.mp4', count=9, rate=Fraction(2997003, 125000))
    make_copy(tmp_path / 'x.mp4', tmp_path / 'copy.mp4', 64, '')
    fps = [decord.VideoReader(str(tmp_path / f), num_threads=1).get_avg_fps() for f in ('x.mp4', 'copy.mp4')]
    assert fps[0] == pytest.approx(fps[1], 1e-4)


def test_copies_never_meet():
    paths = ['a.avi', 'a.mp4', 'a.avi.webm', 'b.mp4', 'd/a.avi', 'b.mp4']
    names = copy_names(paths)
    assert len(set(names.values())) == len(names) == 5
    assert names['b.mp4'] == 'b.mp4' and names['d/a.avi'] == 'd/a.mp4' and names['a.avi'] == 'a.avi.mp4'


def spoil(source: Path) -> list[str]:
    """Files that cannot be decoded, or not to their end."""
    (source / 'empty.mp4').write_bytes(b'')
    (source / 'text.mp4').write_text('no video')
    (source / 'folder.mp4').mkdir()
    truncate(source / 'a/x.mp4', source / 'cut.mp4')
    truncate(source / 'a/x.avi', source / 'cut.avi')
    return ['empty.mp4', 'text.mp4', 'folder.mp4', 'cut.mp4', 'cut.avi', 'none.mp4']


def test_what_cannot_be_decoded_is_named_and_left_out(source, tmp_path, capsys):
    bad = spoil(source)
    names = reencode([*bad, *PATHS], source, tmp_path / 'target', 40, workers=2)
    assert names == [*[''] * len(bad), 'a/x.mp4.mp4', 'b c/ü.mp4', 'a/x.avi.mp4']
    assert set(files(tmp_path / 'target')) == set(names) - {''}
    said = capsys.readouterr().out
    assert f'{len(bad)} videos cannot be decoded' in said and all(f'  {name} (' in said for name in bad)
    with pytest.raises(UserError, match='None of the videos'):
        reencode(bad, source, tmp_path / 'other', 40, workers=2)


def test_what_is_there_is_kept_and_what_changed_is_made_again(source, tmp_path, capsys):
    target = tmp_path / 'target'
    names = reencode(PATHS, source, target, 40, workers=1)
    before = {name: (target / name).stat().st_mtime_ns for name in names}
    made = files(target)

    def made_again(short_side: int = 40) -> set[str]:
        assert reencode(PATHS, source, target, short_side, workers=1) == names
        changed = {name for name in names if (target / name).stat().st_mtime_ns != before[name]}
        before.update({name: (target / name).stat().st_mtime_ns for name in names})
        return changed

    assert made_again() == set() and '0 videos re-encoded, 3 existed' in capsys.readouterr().out
    for damage in (made[names[1]][:-1], made[names[1]][:-200], b''):
        (target / names[1]).write_bytes(damage)
        before[names[1]] = 0
        assert made_again() == {names[1]} and shown(target / names[1]) == list(range(20))
    write_video(source / PATHS[2], count=30)
    assert made_again() == {names[2]} and shown(target / names[2]) == list(range(30))
    assert made_again(48) == set(names)


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    paths = [f'{i}.mp4' for i in range(12)]
    for path in paths:
        write_video(tmp_path / 'source' / path, count=40, size=(160, 120))
    target = tmp_path / 'target'

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        reencode(paths, tmp_path / 'source', target, 200, workers=2)

    kept = 0
    for enough in (1, 3):  # copies at which it is killed
        process = multiprocessing.get_context('fork').Process(target=run)
        process.start()
        while len(list(target.glob('*.mp4'))) < enough:
            time.sleep(0.002)
        process.kill()
        process.join()
        there = list(target.glob('*.mp4'))
        for file in there:
            assert shown(file) == list(range(40)), 'a copy under its name is whole'
        kept = len(there)
    stats = {file.name: file.stat().st_mtime_ns for file in target.glob('*.mp4')}
    assert 0 < kept < len(paths), 'killed in the middle'
    assert reencode(paths, tmp_path / 'source', target, 200, workers=2) == paths
    assert sorted(files(target)) == sorted(paths), 'and nothing half-made is left'
    assert all(shown(target / path) == list(range(40)) for path in paths)
    assert all((target / name).stat().st_mtime_ns == time for name, time in stats.items()), 'none is made twice'


def test_a_crash_is_one_videos_problem(source, tmp_path, monkeypatch):
    from vpetl_mm.preparation import reencode as module

    def crash(path: Path, copy: Path, *rest: object) -> None:
        if path.suffix == '.mkv':
            copy.parent.mkdir()
            copy.with_name(f'{copy.name}.partial').write_bytes(b'half')
            os.abort()
        make_copy(path, copy, *rest)

    monkeypatch.setattr(module, 'make_copy', crash)
    names = ['a/x.mp4.mp4', '', 'a/x.avi.mp4']
    assert reencode(PATHS, source, tmp_path / 'target', 40, workers=2) == names
    assert set(files(tmp_path / 'target')) == {*names} - {''}, 'half a copy is not left behind'


def test_only_a_whole_copy_with_its_tag_is_finished(source, tmp_path):
    make_copy(source / 'a/x.mp4', tmp_path / 'copy.mp4', 40, 'tag')
    assert is_finished(tmp_path / 'copy.mp4', 'tag') and not is_finished(tmp_path / 'copy.mp4', 'other')
    assert not is_finished(tmp_path / 'none.mp4', 'tag') and not is_finished(tmp_path, 'tag')
    for share in (0.5, 0.9, 0.999):
        assert not is_finished(truncate(tmp_path / 'copy.mp4', tmp_path / 'cut.mp4', share), 'tag')


def test_a_full_disk_is_no_damage_of_the_videos(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    paths = sorted(files(source))
    with monkeypatch.context() as context:
        context.setattr('vpetl_mm.preparation.reencode.make_copy', full)
        with pytest.raises(UserError, match=r'takes no more files \(No space left on device\)'):
            reencode(paths, source, tmp_path / 'out', 64, 1)
    assert all(reencode(paths, source, tmp_path / 'out', 64, 1))
