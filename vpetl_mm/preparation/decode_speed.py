"""How fast training reads a data set's videos, before and after re-encoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from ..datasets.video_reader import VideoReader

FRAMES, STRIDE, CLIPS = 8, 2, 64


class Speed(NamedTuple):
    """Clips per second on one thread.

    Args:
        before: of the sources.
        after: of the copies.
        clips: how many of each were read.
    """

    before: float
    after: float
    clips: int

    def __str__(self) -> str:
        return (
            f'{self.before:.1f} clips/s before, {self.after:.1f} after ({self.after / self.before:.1f} times; '
            f'{self.clips} videos, {FRAMES} frames at stride {STRIDE}, opening included, 1 thread)'
        )


def _read_clip(file: Path, start: float) -> float:
    """Read one clip; ``start`` in [0, 1) says where. Returns the seconds it took."""
    began = time.perf_counter()
    reader = VideoReader(file)
    first = int(start * max(1, len(reader) - (FRAMES - 1) * STRIDE))
    reader.frames([(first + STRIDE * i) % len(reader) for i in range(FRAMES)])
    return time.perf_counter() - began


def decode_speed(pairs: Sequence[tuple[Path, Path]], seed: int = 0) -> Speed | None:
    """Read a clip of up to 64 videos in both versions in turn, each from the same place.

    Both files are read once before, so that the disk has no part in it.

    Args:
        pairs: a source and its copy each.
        seed: of the videos and of the places. Defaults to 0.

    Returns:
        the speeds, or None where none of the sources can be read.
    """
    rng = np.random.default_rng(seed)
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:CLIPS]]
    seconds = []
    for pair in chosen:
        start = float(rng.random())
        try:
            for file in pair:
                file.read_bytes()
            seconds.append([_read_clip(file, start) for file in pair])
        except (av.FFmpegError, OSError, RuntimeError, UnicodeError):
            continue  # the copies are made of every frame that can be decoded, which asks for less
    if not seconds:
        return None
    before, after = np.sum(seconds, axis=0)
    return Speed(len(seconds) / before, len(seconds) / after, len(seconds))
