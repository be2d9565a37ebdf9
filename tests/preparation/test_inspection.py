"""A video has the frames that a player shows, the same ones for training, check and copies."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from numbered import cut, frame, number_of, shown, silence, write

from vpetl_mm.datasets.video_reader import VideoReader
from vpetl_mm.preparation.inspection import WHOLE, inspect_video
from vpetl_mm.preparation.problems import of_file
from vpetl_mm.preparation.small_copy import make_copy

HEVC = dict(x265_params='log-level=none:keyint=12:open-gop=1:bframes=3')
PYRAMID = dict(x264_params='keyint=250:bframes=3:b-pyramid=2')
# a path, an encoder and its options, and from which frame to which it is cut
CUTS = {
    'long.mp4': ('libx264', dict(g='250', bf='0'), 30, 50),
    'both_ends.mp4': ('libx264', PYRAMID, 17, 40),
    'both_ends.mov': ('libx264', PYRAMID, 17, 40),
    'short.mp4': ('libx264', dict(g='8'), 5, 13),
    'open.mp4': ('libx264', dict(x264_params='open-gop=1:keyint=10:min-keyint=4:bframes=3'), 23, 37),
    'hevc.mp4': ('libx265', HEVC, 17, 40),
    'hevc.mkv': ('libx265', HEVC, 17, 50),
    'mpeg4.mov': ('mpeg4', dict(bf='2', g='12'), 17, 40),
    'mpeg4.mkv': ('mpeg4', dict(bf='2', g='12'), 17, 50),
    'mpeg2.ts': ('mpeg2video', dict(bf='2', g='12'), 17, 50),
    'motion_jpeg.mov': ('mjpeg', dict(pix_fmt='yuvj420p'), 17, 40),
    'vp9.mp4': ('libvpx-vp9', dict(g='20'), 17, 40),
}
UNEVEN = list(accumulate([0, *random.Random(0).choices([7, 33, 40, 200, 800], k=49)]))


def two_streams(path: Path, first: str, cover: bool) -> Path:
    """The numbered frames beside a picture, which stands first in the file or last."""
    with av.open(str(path), 'w') as made:
        streams = {}
        for kind in (first, *{'picture', 'numbers'} - {first}):
            streams[kind] = made.add_stream('mjpeg' if kind == 'picture' else 'libx264', rate=25)
            streams[kind].height, streams[kind].width = frame(0).shape[:2]
            streams[kind].pix_fmt = 'yuvj420p' if kind == 'picture' else 'yuv420p'
        if cover:
            streams['picture'].disposition = Disposition.attached_pic
        made.mux(streams['picture'].encode(av.VideoFrame.from_ndarray(frame(63), format='rgb24')))
        for number in range(20):
            made.mux(streams['numbers'].encode(av.VideoFrame.from_ndarray(frame(number), format='rgb24')))
        for stream in streams.values():
            made.mux(stream.encode())
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    'uneven.mkv': lambda path: write(path, 'libx264', times=UNEVEN),
    'uneven.mp4': lambda path: write(path, 'libx264', times=UNEVEN),
    'before_zero.mp4': lambda path: write(path, 'libx264', times=range(-400, 1600, 40)),
    'before_zero.mkv': lambda path: write(path, 'libx264', times=range(-400, 1600, 40)),
    'no_times.h264': lambda path: write(path, 'libx264'),
    'some_times.vob': lambda path: write(path, 'mpeg2video', bf='2'),
    'no_order.avi': lambda path: write(path, 'libx264'),
    'pictures.avi': lambda path: write(path, 'png', pix_fmt='rgb24'),
    'alpha.mov': lambda path: write(path, 'png', pix_fmt='rgba'),
    'alpha.webm': lambda path: write(path, 'libvpx-vp9', pix_fmt='yuva420p'),
    'interlaced.ts': lambda path: write(path, 'libx264', flags='+ilme+ildct'),
    'cover.mp4': lambda path: two_streams(path, 'picture', cover=True),
    'picture_first.mkv': lambda path: two_streams(path, 'picture', cover=False),
    'picture_last.mkv': lambda path: two_streams(path, 'numbers', cover=False),
}


def agree(path: Path, expected: list[int], folder: Path) -> None:
    """Refuse a file of which training, check or a copy see other frames than ``expected``."""
    count = len(expected)
    assert [number_of(f) for f in VideoReader(path).frames(range(count))] == expected
    assert len(VideoReader(path)) == count
    rng = random.Random(path.name)
    for _ in range(8):
        indices = rng.choices(range(count), k=4)
        assert [number_of(f) for f in VideoReader(path).frames(indices)] == [expected[i] for i in indices]
    found = inspect_video(str(path))
    assert found.frames == count and of_file(found, 1) is None
    make_copy(path, folder / 'copy.mp4', 64, '')
    assert shown(folder / 'copy.mp4') == expected


@pytest.mark.parametrize('name', CUTS)
def test_a_cut_video_has_the_frames_that_a_player_shows(tmp_path, name):
    codec, options, first, end = CUTS[name]
    whole = write(tmp_path / f'whole{".mkv" if name.endswith(".ts") else Path(name).suffix}', codec, **options)
    path = cut(whole, tmp_path / name, first, end)
    expected = shown(path)
    assert expected == sorted(set(expected)) and len(expected) >= WHOLE * (end - first)
    assert expected[0] == first or path.suffix in ('.mkv', '.ts'), 'an edit list hides what lies before'
    agree(path, expected, tmp_path)


@pytest.mark.parametrize('codec', ['libx264', 'libvpx', 'libvpx-vp9'])
def test_what_lies_before_the_first_key_frame_is_not_shown(tmp_path, codec):
    path = cut(write(tmp_path / 'whole.mkv', codec, g='12', bf='0'), tmp_path / 'cut.mkv', 5, 50, at_key=False)
    agree(path, list(range(12, 50)), tmp_path)


@pytest.mark.parametrize('name', ODD)
def test_odd_files_have_the_frames_that_a_player_shows(tmp_path, name):
    path = ODD[name](tmp_path / name)
    expected = shown(path)
    assert expected == sorted(set(expected)) and len(expected) >= 20
    agree(path, expected, tmp_path)


def test_frames_that_cannot_be_decoded_at_the_beginning_are_told(tmp_path):
    """Of a video that has no whole key frame but the first."""
    whole = write(tmp_path / 'whole.mkv', 'libx264', x264_params='intra-refresh=1:keyint=15:bframes=0')
    path = cut(whole, tmp_path / 'cut.mkv', 30, 50)
    with pytest.raises(OSError, match='its first frames cannot be decoded'):
        inspect_video(str(path))
    with pytest.raises(OSError, match='its first frames cannot be decoded'):
        make_copy(path, tmp_path / 'copy.mp4', 64, '')


@pytest.mark.parametrize('cover', [False, True])
def test_sound_is_no_video_with_a_cover_or_without(tmp_path, cover):
    with av.open(str(tmp_path / 'a.mp4'), 'w') as made:
        streams = [made.add_stream('aac', rate=16000), *([made.add_stream('mjpeg', rate=25)] if cover else [])]
        for stream in streams[1:]:
            stream.height, stream.width, stream.pix_fmt, stream.disposition = (
                32,
                96,
                'yuvj420p',
                Disposition.attached_pic,
            )
            made.mux(stream.encode(av.VideoFrame.from_ndarray(frame(1), format='rgb24')))
        made.mux(streams[0].encode(silence(16000, 'mono')))
        made.mux([packet for stream in streams for packet in stream.encode()])
    for read in (VideoReader, inspect_video):
        with pytest.raises(OSError, match='no video'):
            read(str(tmp_path / 'a.mp4'))


def test_two_parts_of_a_video_are_not_the_same(tmp_path):
    """Their packets may be, where an edit list alone tells them apart."""
    whole = write(tmp_path / 'whole.mp4', 'libx264', g='250', bf='0')
    parts = [cut(whole, tmp_path / f'{first}.mp4', first, 50) for first in (10, 30)]
    assert len({inspect_video(str(part)).digest for part in parts}) == 2
