"""A copy shows the grey levels, the colours and the side up of its source, as FFmpeg converts them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from numbered import write

from vpetl_mm.datasets.video_reader import VideoReader
from vpetl_mm.preparation.small_copy import make_copy

HEIGHT, WIDTH = 64, 96
GREYS = [0, 13, 64, 128, 191, 242]
COLOURS = [(200, 40, 60), (30, 180, 70), (50, 60, 210), (220, 200, 40), (128, 128, 128), (90, 30, 140)]
LIMITED, FULL = 1, 2
BT709, BT601 = 1, 5
X265 = dict(x265_params='log-level=none', crf='2')
# a suffix, an encoder, its pixels and options
ENCODERS = {
    'h264': ('mp4', 'libx264', 'yuv420p', dict(crf='2')),
    'h264 of 4:2:2': ('mp4', 'libx264', 'yuv422p', dict(crf='2')),
    'h264 of 4:4:4': ('mp4', 'libx264', 'yuv444p', dict(crf='2')),
    'h264 of 10 bits': ('mp4', 'libx264', 'yuv420p10le', dict(crf='2')),
    'hevc': ('mp4', 'libx265', 'yuv420p', X265),
    'hevc of 10 bits': ('mp4', 'libx265', 'yuv420p10le', X265),
    'vp9': ('webm', 'libvpx-vp9', 'yuv420p', dict(crf='2')),
    'ffv1': ('mkv', 'ffv1', 'yuv420p', {}),
    'motion jpeg': ('avi', 'mjpeg', 'yuvj420p', {}),
    'motion jpeg of 4:2:2': ('mov', 'mjpeg', 'yuvj422p', {}),
}


def stripes(path: Path, encoder: str, colours: list[tuple[int, ...]], grey_range: int, matrix: int) -> Path:
    """Four frames of stripes, 16 pixels wide, converted to the encoder's pixels in this range and by this matrix."""
    _, codec, pixels, options = ENCODERS[encoder]
    picture = np.broadcast_to(np.repeat(colours, 16, 0), (HEIGHT, WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), 'w') as made:
        stream = made.add_stream(codec, rate=25, options={k.replace('_', '-'): v for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.color_range, stream.colorspace = grey_range, matrix
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
        frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=grey_range)
        frame.color_range, frame.colorspace = grey_range, matrix
        for number in range(4):
            frame.pts = number
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def middles(picture: np.ndarray) -> np.ndarray:
    return picture[HEIGHT // 2, 8::16].astype(int)


@pytest.mark.parametrize(
    ('encoder', 'grey_range'),
    [(e, r) for e in ENCODERS for r in (LIMITED, FULL) if r == FULL or 'jpeg' not in e],  # which has no other
)
def test_grey_levels_stay(tmp_path, encoder, grey_range):
    wanted = np.repeat(np.array(GREYS)[:, None], 3, 1)
    path = stripes(tmp_path / f'a.{ENCODERS[encoder][0]}', encoder, [*wanted], grey_range, BT601)
    make_copy(path, tmp_path / 'copy.mp4', HEIGHT, '')
    for file in (path, tmp_path / 'copy.mp4'):
        assert np.abs(middles(VideoReader(file).frames([2])[0]) - wanted).max() <= 3, file


@pytest.mark.parametrize('matrix', [BT601, BT709], ids=['bt601', 'bt709'])
@pytest.mark.parametrize('encoder', ['h264', 'hevc of 10 bits', 'vp9', 'ffv1'])
def test_colours_stay(tmp_path, encoder, matrix):
    for grey_range in (LIMITED, FULL):
        path = stripes(tmp_path / f'a.{ENCODERS[encoder][0]}', encoder, COLOURS, grey_range, matrix)
        make_copy(path, tmp_path / 'copy.mp4', HEIGHT, '')
        for file in (path, tmp_path / 'copy.mp4'):
            assert np.abs(middles(VideoReader(file).frames([2])[0]) - COLOURS).max() <= 6, file


def test_colours_that_nothing_can_convert_are_refused(tmp_path):
    """YCgCo: neither FFmpeg nor a copy could show them."""
    path = write(tmp_path / 'a.mp4', 'libx264', 4, x264_params='colormatrix=YCgCo')
    for read in (
        lambda: VideoReader(path).frames([0]),
        lambda: make_copy(path, tmp_path / 'copy.mp4', 32, ''),
    ):
        with pytest.raises(OSError, match='not supported'):
            read()
    assert not (tmp_path / 'copy.mp4').exists()


# matrices (a, b, c, d): a point (x, y) is shown at (ax + cy, bx + dy)
TURNS = [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)]


def ffmpegs_filters(a: int, b: int, c: int, d: int) -> list[tuple[str, ...]]:
    """What the ffmpeg command does for a display matrix, written out from its fftools/ffmpeg_filter.c."""
    if a == d == 0:
        if (b, c) in ((1, -1), (1, 1)):
            return [('transpose', 'clock' if c < 0 else 'cclock_flip')]
        return [('transpose', 'cclock' if c > 0 else 'clock_flip')]
    return [('hflip',)] * (a < 0) + [('vflip',)] * (d < 0)


@pytest.mark.parametrize('turn', TURNS, ids=str)
def test_each_orientation_is_upright(tmp_path, turn):
    a, b, c, d = turn
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    path = write(tmp_path / 'a.mp4', 'libx264', 6, 'yuv444p', matrix=matrix, crf='4')
    with av.open(str(path)) as container:
        stored = [*container.decode(video=0)][3]
    graph = Graph()
    nodes = [
        graph.add_buffer(width=stored.width, height=stored.height, format=stored.format, time_base=stored.time_base)
    ]
    nodes += [graph.add(*each) for each in (*ffmpegs_filters(*turn), ('format', 'rgb24'), ('buffersink',))]
    graph.link_nodes(*nodes).configure()
    graph.push(stored)
    wanted = graph.pull().to_ndarray().astype(int)
    assert np.abs(VideoReader(path).frames([3])[0] - wanted).max() <= 2
    make_copy(path, tmp_path / 'copy.mp4', HEIGHT, '')
    got = VideoReader(tmp_path / 'copy.mp4').frames([3])[0]
    assert got.shape == wanted.shape and np.abs(got - wanted).mean() < 4
    with av.open(str(tmp_path / 'copy.mp4')) as container:
        assert not next(container.decode(video=0)).side_data.get('DISPLAYMATRIX'), 'nothing turns it a second time'
