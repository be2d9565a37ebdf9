"""Videos whose frames show their own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 6


def frame(number: int, size: tuple[int, int] = (96, 32)) -> np.ndarray:
    """[H, W, 3] of a size (W, H): the number as black and white bars, lowest bit first, above a moving pattern."""
    width, height = size
    bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], -(-width // BITS))[:width]
    pattern = (np.add.outer(np.arange(height - height // 2), np.arange(width)) * 16 + 5 * number) % 200
    return np.repeat(np.concatenate([[bars] * (height // 2), pattern])[..., None], 3, 2).astype(np.uint8)


def number_of(picture: np.ndarray) -> int:
    """The number that a frame [H, W, 3] shows."""
    height, width = picture.shape[:2]
    step = -(-width // BITS)
    return sum(int(value > 127) << bit for bit, value in enumerate(picture[height // 4, step // 2 :: step, 0]))


def write(
    path: Path,
    codec: str = 'libx264',
    count: int = 50,
    pix_fmt: str = 'yuv420p',
    size: tuple[int, int] = (96, 32),
    rate: int | Fraction = 25,
    times: Sequence[int] = (),
    matrix: Sequence[int] | None = None,
    sound: bool = False,
    title: str = '',
    **options: str,
) -> Path:
    """A video of ``count`` frames, 0 to count - 1, and the folders above it.

    Args:
        size: width and height.
        times: of the frames in milliseconds; by default they follow ``rate``.
        matrix: how the header asks for the frames to be shown.
        sound: add a moment of silence.
        options: the encoder's, with _ for -.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {key.replace('_', '-'): value for key, value in options.items()}
    with av.open(str(path), 'w') as container:
        container.metadata['title'] = title
        stream = container.add_stream(codec, rate=rate, options={'threads': '1', **options})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.set_display_matrix(matrix)
        audio = container.add_stream('aac' if path.suffix == '.mp4' else 'mp3', rate=44100) if sound else None
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(frame(number, size), format='rgb24')
            if times:
                picture.pts, picture.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if audio:
            container.mux([*audio.encode(silence(44100, 'stereo')), *audio.encode()])
    return path


def silence(rate: int, layout: str) -> av.AudioFrame:
    """A moment without sound."""
    channels = {'mono': 1, 'stereo': 2}[layout]
    quiet = av.AudioFrame.from_ndarray(np.zeros((channels, 1024), np.float32), format='fltp', layout=layout)
    quiet.sample_rate = rate
    return quiet


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


def truncate(source: Path, path: Path, share: float = 0.6) -> Path:
    """The beginning of a file, as an interrupted download leaves it."""
    content = source.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
