"""Frames by number: the right ones, whatever the file, and pixel for pixel those of a decoding from the start."""

from __future__ import annotations

import random
import socket
import struct
from itertools import pairwise
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from numbered import number_of, write
from trees import REAL as DATA

import vpetl_mm  # noqa: F401  before mmaction, which the data set imports
from vpetl_mm.datasets import video_reader
from vpetl_mm.datasets.petl_video_dataset import UNREADABLE
from vpetl_mm.datasets.video_reader import VideoReader

REAL = [*sorted((DATA / 'clips').glob('*')), *sorted((DATA / 'fight_surv').glob('*/*'))]
needs_clips = pytest.mark.skipif(not REAL, reason='needs ../shared/data')
# what the decoder has to get right: a path, an encoder and its options
KINDS = {
    'pyramid.mp4': ('libx264', dict(x264_params='bframes=8:b-pyramid=2:b-adapt=0:keyint=25')),
    'open_gop.mp4': ('libx264', dict(x264_params='open-gop=1:keyint=10:min-keyint=4:bframes=3:b-pyramid=2')),
    'intra_refresh.mp4': ('libx264', dict(x264_params='intra-refresh=1:keyint=15')),
    'open_gop.mkv': ('libx264', dict(x264_params='open-gop=1:keyint=12:bframes=2')),
    'stream.ts': ('libx264', dict(g='12')),
    'no_times.avi': ('libx264', dict(g='12')),
    'xvid.avi': ('mpeg4', dict(bf='2', g='12')),
    'xvid.mp4': ('mpeg4', dict(bf='2', g='12')),
    'mpeg2.mpg': ('mpeg2video', dict(bf='2', g='12')),
    'vp8.webm': ('libvpx', dict(auto_alt_ref='1', lag_in_frames='16', g='20')),
    'vp9.webm': ('libvpx-vp9', dict(auto_alt_ref='1', lag_in_frames='16', g='20')),
    'motion_jpeg.avi': ('mjpeg', dict(pix_fmt='yuvj420p')),
}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('made')
    for name, (codec, options) in KINDS.items():
        write(folder / name, codec, **options)
    return folder


@pytest.mark.parametrize('name', KINDS)
def test_each_frame_is_the_one_of_its_number(made, name):
    rng = random.Random(name)
    whole = VideoReader(made / name)
    assert len(whole) == 50
    assert [number_of(f) for f in whole.frames(range(50))] == list(range(50))
    for _ in range(6):
        start = rng.randrange(50)
        clip = [(start + 2 * i) % 50 for i in range(8)]  # past the end it begins anew, as SampleFrames does
        scattered = [rng.randrange(50) for _ in range(5)]
        for reader in (whole, VideoReader(made / name)):
            assert [number_of(f) for f in reader.frames(clip)] == clip
            assert [number_of(f) for f in reader.frames(scattered)] == scattered


# intra refresh has no frame to begin at but the first, this avi file no order in time
@pytest.mark.parametrize('name', [k for k in KINDS if k not in ('intra_refresh.mp4', 'no_times.avi')])
def test_none_is_decoded_from_the_start_in_vain(made, monkeypatch, name):
    monkeypatch.setattr(VideoReader, '__iter__', None)
    rng = random.Random(name)
    reader = VideoReader(made / name)
    for _ in range(40):
        indices = rng.sample(range(50), rng.randint(1, 8))
        assert [number_of(f) for f in reader.frames(indices)] == indices


def test_frames_that_no_other_needs_are_not_decoded(made):
    reader = VideoReader(made / 'pyramid.mp4')
    times = sorted(packet.pts for packet in reader._packets)
    assert len(list(reader._decoded(0, 50))) == 50
    assert len(list(reader._decoded(0, 50, needed=times[:1]))) <= 30


def test_only_what_lies_behind_a_key_frame_is_decoded(made, monkeypatch):
    reader = VideoReader(made / 'pyramid.mp4')
    decoded = []
    original = VideoReader._decoded

    def spy(self, first, end, needed=None):
        decoded.append((first, end))
        return original(self, first, end, needed)

    monkeypatch.setattr(VideoReader, '_decoded', spy)
    assert [number_of(f) for f in reader.frames([1, 40])] == [1, 40]
    (first, end), (second, last) = decoded
    assert first == 0 and end < 25 == second < last


@needs_clips
@pytest.mark.parametrize('path', REAL, ids=lambda p: p.stem)
def test_real_clips_give_the_frames_of_a_decoding_from_the_start(path):
    with av.open(str(path), metadata_errors='ignore') as container:
        expected = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
    reader = VideoReader(path)
    assert len(reader) == len(decord.VideoReader(str(path), num_threads=1)), 'SampleFrames draws by it'
    start = random.Random(path.name).randrange(len(reader))
    indices = [(start + 2 * i) % len(reader) for i in range(8)]
    for index, got in zip(indices, reader.frames(indices), strict=True):
        # DivX's last packet holds no frame: the last one stands in for it
        assert np.array_equal(got, expected[min(index, len(expected) - 1)]), index


@needs_clips
@pytest.mark.parametrize('path', REAL[::12], ids=lambda p: p.stem)
def test_pixels_are_decords_within_one_grey_level(path):
    """Read in order, as its random access misplaces frames of some avi files."""
    in_order = decord.VideoReader(str(path), num_threads=1)
    expected = np.stack([in_order[i].asnumpy() for i in range(20)]).astype(int)
    assert np.abs(np.stack(VideoReader(path).frames(range(20))) - expected).max() <= 1


@needs_clips
@pytest.mark.parametrize('known', [True, False], ids=['order known', 'order unknown'])
def test_the_last_frame_stands_in_for_a_packet_without_one(monkeypatch, known):
    """DivX's avi files, such as HMDB51's."""
    if not known:
        monkeypatch.setattr(video_reader, 'order_by_kind', lambda _: None)
    reader = VideoReader(next(path for path in REAL if path.name.startswith('hmdb51_')))
    assert reader._order is None if not known else len(reader._order) == len(reader) - 1
    last, beyond, first = reader.frames([len(reader) - 2, len(reader) - 1, 0])
    assert np.array_equal(last, beyond) and not np.array_equal(first, last)


def test_a_frame_asked_for_twice_can_be_changed_in_place_once(made):
    first, second, other = VideoReader(made / 'pyramid.mp4').frames([7, 7, 8])
    first[:] = 0
    assert number_of(first) == 0 and number_of(second) == 7 and number_of(other) == 8


def test_without_times_frames_are_counted(made, monkeypatch):
    monkeypatch.setattr(video_reader, 'order_by_time', lambda *_: None)
    reader = VideoReader(made / 'pyramid.mp4')
    assert [number_of(f) for f in reader.frames([30, 3])] == [30, 3]


@pytest.mark.parametrize('content', [b'', b'no video at all', b'\0' * 5000], ids=['empty', 'text', 'zeros'])
@pytest.mark.parametrize('suffix', ['.mp4', '.avi', '.webm'])
def test_what_is_no_video_is_told_as_unreadable(tmp_path, content, suffix):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    for unreadable in (path, tmp_path / f'none{suffix}', tmp_path):
        with pytest.raises(UNREADABLE):
            VideoReader(unreadable)


def test_a_codec_without_a_decoder_is_unreadable(made, tmp_path):
    (tmp_path / 'a.mp4').write_bytes((made / 'pyramid.mp4').read_bytes().replace(b'avc1', b'zzzz'))
    with pytest.raises(OSError, match='no decoder for its codec'):
        VideoReader(tmp_path / 'a.mp4')


@pytest.mark.parametrize('name', ['pyramid.mp4', 'vp9.webm', 'xvid.avi'])
def test_damage_is_survived_or_told(made, tmp_path, name):
    whole = (made / name).read_bytes()
    read = 0
    for seed in range(30):
        rng = random.Random(seed)
        data = bytearray(whole[: rng.randrange(len(whole))] if seed % 2 else whole)
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / name).write_bytes(data)
        try:
            reader = VideoReader(tmp_path / name)
            frames = reader.frames([len(reader) // 2, len(reader) - 1])
        except UNREADABLE:
            continue
        assert all(f.dtype == np.uint8 and f.ndim == 3 for f in frames)
        read += 1
    assert 0 < read < 30


def test_indices_beyond_the_end_are_refused(made):
    with pytest.raises(IndexError, match='50'):
        VideoReader(made / 'pyramid.mp4').frames([3, 50])


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.m3u8'])
def test_a_playlist_opens_no_connection(tmp_path, name):
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(0.2)
        host = f'http://127.0.0.1:{server.getsockname()[1]}/a.ts'
        path = tmp_path / name
        path.write_text(f'#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{host}\n#EXT-X-ENDLIST\n')
        for listed in (path, host):
            with pytest.raises(UNREADABLE):
                VideoReader(listed)
        with pytest.raises(TimeoutError):
            server.accept()


def over_and_over(path: Path) -> Path:
    """A video each of whose 50 frames is said to be half of the file, beginning at the same byte."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mjpeg', rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, 'yuvj420p'
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format='rgb24')))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    per_chunk, sizes = content.index(b'stsc') + 16, content.index(b'stsz') - 4
    struct.pack_into('>I', content, per_chunk, 1)
    first = struct.unpack_from('>I', content, content.index(b'stco') + 12)[0]
    tables = struct.pack('>I4sIII', 20, b'stsz', 0, len(content) // 2, 50)
    tables += struct.pack('>I4sII51I', 220, b'stco', 0, 51, *[first] * 51)
    content[sizes : sizes + len(tables)] = tables
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('name', ['list.mp4', 'list.avi', 'itself.mp4', 'overlapping.mp4', 'large.mp4'])
def test_a_small_file_opens_no_other_and_takes_no_memory(tmp_path, monkeypatch, name):
    write(tmp_path / 'large.mp4', 'libx264')
    (tmp_path / 'list.mp4').write_text('ffconcat version 1.0\nfile large.mp4\n')
    (tmp_path / 'list.avi').write_text('ffconcat version 1.0\nfile large.mp4\n')
    (tmp_path / 'itself.mp4').write_text('ffconcat version 1.0\nfile itself.mp4\n')
    over_and_over(tmp_path / 'overlapping.mp4')
    monkeypatch.setattr(video_reader, 'MOST_PIXELS', 1000)
    with pytest.raises(UNREADABLE, match='twice its size' if name == 'overlapping.mp4' else 'Invalid'):
        VideoReader(tmp_path / name).frames([0])


def test_frames_have_one_size_where_the_video_changes_its_own(tmp_path):
    """Two H.264 streams, one after the other, as a bare stream may hold them."""
    parts = [write(tmp_path / f'{size[0]}.h264', count=10, size=size) for size in ((96, 32), (64, 64))]
    (tmp_path / 'both.h264').write_bytes(b''.join(part.read_bytes() for part in parts))
    frames = VideoReader(tmp_path / 'both.h264').frames([0, 5, 15, 19])
    assert all(one.shape == two.shape for one, two in pairwise(frames))
