"""Videos whose frames show their own numbers."""

from __future__ import annotations

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


def write(path: Path, codec: str, count: int = 50, pix_fmt: str = 'yuv420p', **options: str) -> Path:
    """A video of ``count`` frames, 0 to count - 1; ``options`` are the encoder's, with _ for -."""
    options = {key.replace('_', '-'): value for key, value in options.items()}
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options={'threads': '1', **options})
        stream.height, stream.width = frame(0).shape[:2]
        stream.pix_fmt = pix_fmt
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(number), format='rgb24')))
        container.mux(stream.encode())
    return path
