"""One small H.264 copy of a video, frame for frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import compress
from pathlib import Path

import av
from av.container import OutputContainer
from av.filter import Graph
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from ..datasets.video_reader import VideoReader, open_video, orientation, video_stream
from .inspection import WHOLE, promised_frames

# Key frames every 8 frames and no B-frames, so that a clip from anywhere decodes few frames that it does not
# need. CRF 23 is at 41.6 dB of the resized pictures (the worst of 18 real clips 38.5); 20 is at 43.8, 35 % larger
# and decodes a fifth slower. Tuned for decoding it is 1.5 times as fast for 12 % more bytes. One thread, as files
# are made in parallel.
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
FILTERS = (('transpose', 'cclock_flip'), ('hflip',), ('vflip',))  # what orientation() says to do
FORMAT = 2  # raise it when the same settings give other copies: what was made before is then made again


def tag_of(source: Path, short_side: int) -> str:
    """What a copy is of, and how it was made; it stands in the copy's header."""
    stat = source.stat()
    return f'vpetl_mm {FORMAT}, short side {short_side}, of {stat.st_size} bytes at {stat.st_mtime_ns}'


def is_finished(copy: Path, tag: str) -> bool:
    """Whether a whole copy with this tag is there."""
    try:
        with open_video(copy) as container:
            stream = container.streams.video[0]
            packets = sum(p.size > 0 and not p.is_corrupt for p in container.demux(stream))
            return container.metadata.get('comment') == tag and packets == stream.frames
    except (av.FFmpegError, OSError, IndexError):
        return False


def small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """The copy's size in pixels: even, as 4:2:0 needs, never larger, of the same shape."""
    scale = min(1.0, short_side / min(width, height))
    even = [2 * max(1, min(round(side * scale / 2), side // 2)) for side in (width, height)]
    return even[0], even[1]


def _frames(reader: VideoReader, promised: int) -> Iterator[av.VideoFrame]:
    """Every frame as training reads it; a ValueError at the end where too few could be decoded."""
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
    if not like.format.is_rgb:  # how the colours are meant stays
        made.colorspace, made.color_primaries, made.color_trc = like.colorspace, like.color_primaries, like.color_trc
    return stream


def _turner(filters: Sequence[tuple[str, ...]], size: tuple[int, int], rate: Fraction) -> Graph:
    """Turns and mirrors frames of ``size``."""
    graph = Graph()
    nodes = [graph.add_buffer(width=size[0], height=size[1], format=PIXELS, time_base=1 / rate)]
    nodes += [graph.add(*each) for each in filters]
    nodes.append(graph.add('buffersink'))
    graph.link_nodes(*nodes).configure()
    return graph


def _write(source: Path, partial: Path, short_side: int, tag: str) -> None:
    reader = VideoReader(source)
    with open_video(source) as container:
        given = video_stream(container)
        rate = given.average_rate or given.guessed_rate or Fraction(25)
        promised = promised_frames(container, reader) or 0
    with av.open(str(partial), 'w', format='mp4', options={'movflags': '+faststart'}) as writer:
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
            # to the usual range of grey levels, as not every reader heeds the full one
            small = convert.reformat(frame, *size, PIXELS, interpolation='BICUBIC', dst_color_range='MPEG', threads=1)
            # counted, not timed: clips are sampled by index, and the times in avi files are wrong
            small.pts, small.time_base = index, 1 / rate
            if graph:
                graph.push(small)
                small = graph.pull()
            small.pict_type = PictureType.NONE  # or the source's key frames stay key frames
            writer.mux(stream.encode(small))
        writer.mux(stream.encode())


def make_copy(source: Path, copy: Path, beside: Path, short_side: int, tag: str) -> None:
    """Encode the copy in the folder ``beside`` and rename it when it is whole.

    Raises:
        Exception: of many kinds, when the source cannot be decoded to its end.
    """
    partial = beside / f'{os.getpid()}.mp4'
    try:
        _write(source, partial, short_side, tag)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)
