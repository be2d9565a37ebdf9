"""Makes a small H.264 copy of a video, frame for frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import compress
from pathlib import Path

import av
from av.container import OutputContainer
from av.filter import Graph
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from ..datasets.frame_picture import orientation
from ..datasets.video_reader import VideoReader, open_video, video_stream
from ..files import written_whole
from .inspection import WHOLE, promised_frames

# A key frame every 8 frames and no B-frames, so that a clip from anywhere decodes few frames in vain. CRF 23 has
# 41.6 dB against the resized pictures (38.5 in the worst of 18 real clips); 20 has 43.8, is 35 % larger and decodes a
# fifth slower. Tuning for decoding makes it 1.5 times as fast for 12 % more bytes. One thread, as files are made in
# parallel.
ENCODER = {
    'preset': 'medium',
    'tune': 'fastdecode',
    'crf': '23',
    'g': '8',
    'keyint_min': '8',
    'sc_threshold': '0',
    'bf': '0',
    'threads': '1',
}
PIXELS = 'yuv420p'
FILTERS = (('transpose', 'cclock_flip'), ('hflip',), ('vflip',))  # as orientation() orders them
FORMAT = 2  # raise it when the same settings make other copies: earlier ones are then made again


def tag_of(source: Path, short_side: int) -> str:
    """Return the tag for a copy's header: its source and settings."""
    stat = source.stat()
    return f'vpetl_mm {FORMAT}, short side {short_side}, of {stat.st_size} bytes at {stat.st_mtime_ns}'


def is_finished(copy: Path, tag: str) -> bool:
    """Check that a whole copy with this tag exists."""
    try:
        with open_video(copy) as container:
            stream = container.streams.video[0]
            packets = sum(p.size > 0 and not p.is_corrupt for p in container.demux(stream))
            return container.metadata.get('comment') == tag and packets == stream.frames
    except (av.FFmpegError, OSError, IndexError):
        return False


def small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the copy's size in pixels: even, as 4:2:0 needs, never larger, of the same shape."""
    scale = min(1.0, short_side / min(width, height))
    even = [2 * max(1, min(round(side * scale / 2), side // 2)) for side in (width, height)]
    return even[0], even[1]


def _frames(reader: VideoReader, promised: int) -> Iterator[av.VideoFrame]:
    """Yield every frame as training reads it; raise ValueError at the end if too few could be decoded."""
    decoded, before = 0, None
    for frame in reader:
        decoded += frame is not before
        before = frame
        yield frame
    if decoded < WHOLE * max(promised, len(reader)):
        raise ValueError(f'only {decoded} of {max(promised, len(reader))} frames can be decoded')


def _add_stream(
    writer: OutputContainer, rate: Fraction, size: tuple[int, int], like: av.VideoFrame
) -> av.VideoStream:
    stream = writer.add_stream('libx264', rate=rate, options=ENCODER)
    stream.width, stream.height = size
    stream.pix_fmt = PIXELS
    made = stream.codec_context
    made.time_base = 1 / rate
    if not like.format.is_rgb:  # keep the colour space
        made.colorspace, made.color_primaries, made.color_trc = like.colorspace, like.color_primaries, like.color_trc
    return stream


def _turner(filters: Sequence[tuple[str, ...]], size: tuple[int, int], rate: Fraction) -> Graph:
    """Build a graph that turns and mirrors frames of ``size``."""
    graph = Graph()
    nodes = [graph.add_buffer(width=size[0], height=size[1], format=PIXELS, time_base=1 / rate)]
    nodes += [graph.add(*each) for each in filters]
    nodes.append(graph.add('buffersink'))
    graph.link_nodes(*nodes).configure()
    return graph


def _write(source: Path, copy: Path, short_side: int, tag: str) -> None:
    reader = VideoReader(source)
    with open_video(source) as container:
        given = video_stream(container)
        rate = given.average_rate or given.guessed_rate or Fraction(25)
        promised = promised_frames(container, reader) or 0
    with av.open(str(copy), 'w', format='mp4', options={'movflags': '+faststart'}) as writer:
        writer.metadata['comment'] = tag
        stream = graph = None
        convert = VideoReformatter()
        for index, frame in enumerate(_frames(reader, promised)):
            if stream is None:
                convert.reformat(frame, format='rgb24', threads=1)  # refuses colours that no reader could convert
                shown = orientation(frame)
                size = small_size(frame.width, frame.height, short_side)
                stream = _add_stream(writer, rate, size[::-1] if shown[0] else size, frame)
                graph = _turner([*compress(FILTERS, shown)], size, rate) if any(shown) else None
            # to the limited range of grey levels, as not every reader heeds the full one
            small = convert.reformat(frame, *size, PIXELS, interpolation='BICUBIC', dst_color_range='MPEG', threads=1)
            # timed by index: clips are sampled by index, and the times in avi files are wrong
            small.pts, small.time_base = index, 1 / rate
            if graph:
                graph.push(small)
                small = graph.pull()
            small.pict_type = PictureType.NONE  # or the source's key frames stay key frames
            writer.mux(stream.encode(small))
        writer.mux(stream.encode())


def make_copy(source: Path, copy: Path, short_side: int, tag: str) -> None:
    """Encode a copy, which is written whole or not at all, and the folders above it.

    Raises:
        Exception: of many kinds, if the source cannot be decoded to its end.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(copy) as partial:
        _write(source, partial, short_side, tag)
