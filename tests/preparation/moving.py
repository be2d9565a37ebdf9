"""Videos whose frames say their own number, and real ones spoilt in the ways that downloads are."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np

BITS = 6


def write_video(
    path: Path, frames: int = 20, size: tuple[int, int] = (96, 64), rate: Fraction | int = 25, codec: str = 'libx264'
) -> Path:
    """A video of (width, height) whose frame n shows n in binary as black and white bars; with some silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv444p' if codec == 'libx264' else 'yuv420p'
        sound = container.add_stream('aac' if path.suffix == '.mp4' else 'mp3', rate=44100)
        for number in range(frames):
            bars = [255 * (number >> bit & 1) for bit in range(BITS)]
            image = np.repeat(np.repeat(bars, -(-width // BITS))[None, :width], height, 0).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([image] * 3, -1), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        quiet = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format='fltp', layout='stereo')
        quiet.rate = 44100
        container.mux(sound.encode(quiet))
        container.mux(sound.encode())
    return path


def numbers(path: Path) -> list[int]:
    """The number that each frame shows, as decord reads them."""
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = reader.get_batch(range(len(reader))).asnumpy()
    middles = (np.arange(BITS) + 0.5) * -(-frames.shape[2] // BITS)
    bars = frames[:, frames.shape[1] // 2, middles.astype(int), 0] > 127
    return [int(sum(bit << i for i, bit in enumerate(row.tolist()))) for row in bars]


def turn(path: Path) -> None:
    """Ask in an mp4's header for a quarter turn, as telephones do."""
    content = bytearray(path.read_bytes())
    matrix = content.find(b'tkhd') + 4 + 40  # of version 0, and the video is the first track
    assert struct.unpack('>9i', content[matrix : matrix + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack('>9i', 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def cut(source: Path, path: Path, share: float = 0.6) -> Path:
    """The beginning of a file, as a broken-off download leaves it."""
    content = source.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
