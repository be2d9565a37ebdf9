"""Videos whose frames show their own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIDE, BITS = 16, 6


def frame(number: int, height: int = 2 * SIDE, fill: int = 16) -> np.ndarray:
    """[height, 96, 3]: the number in black and white squares, the lowest bit first, above a moving pattern."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    top = np.repeat(np.repeat(np.array([bits]) * 255, SIDE, 0), SIDE, 1)
    below = (np.add.outer(np.arange(height - SIDE), np.arange(SIDE * BITS)) * fill + 5 * number) % 200
    return np.repeat(np.concatenate([top, below])[..., None], 3, 2).astype(np.uint8)


def number_of(picture: np.ndarray) -> int:
    """What a frame [H, W, 3] shows."""
    middles = picture[SIDE // 2, SIDE // 2 :: SIDE, 0]
    return sum(int(value > 127) << bit for bit, value in enumerate(middles))


def write(
    path: Path,
    codec: str,
    count: int = 50,
    pix_fmt: str = 'yuv420p',
    times: Sequence[int] = (),
    matrix: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """A video of ``count`` frames, 0 to count - 1.

    Args:
        times: of the frames in milliseconds; 25 frames per second by default.
        matrix: how the header asks for the frames to be shown.
        options: the encoder's, with _ for -.
    """
    options = {key.replace('_', '-'): value for key, value in options.items()}
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options={'threads': '1', **options})
        stream.height, stream.width = frame(0).shape[:2]
        stream.pix_fmt = pix_fmt
        stream.set_display_matrix(matrix)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(frame(number), format='rgb24')
            if times:
                picture.pts, picture.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def cut(source: Path, path: Path, first: int, end: int, at_key: bool = True) -> Path:
    """The frames from ``first`` up to ``end``, cut without encoding as ``ffmpeg -ss -to -c copy`` does.

    Players show what lies between the key frame and ``first`` unless an edit list, as in mp4, hides it.

    Args:
        at_key: begin at the key frame before; otherwise in its midst, as a recording of a broadcast does.
    """
    with av.open(str(source)) as given, av.open(str(path), 'w') as made:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        copy = made.add_stream_from_template(stream)
        step = round(1 / stream.average_rate / stream.time_base)
        start = min(packet.pts for packet in packets) + first * step
        keys = [n for n, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= start]
        for packet in packets[keys[-1] if at_key else first :]:
            packet.dts = packet.pts - step if packet.dts is None else packet.dts
            if packet.dts < start + (end - first) * step:
                packet.pts -= start
                packet.dts -= start
                packet.stream = copy
                made.mux(packet)
    return path


def shown(path: Path) -> list[int]:
    """The numbers that FFmpeg's plain decoding shows, one after the other."""
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.best('video'))
        return [number_of(picture.to_ndarray(format='rgb24')) for picture in frames]
