"""Opens a video or an image as training will, to see whether it can be read."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import av
from av.container import InputContainer

from ..datasets.image_reader import decode_image
from ..datasets.video_reader import VideoReader, open_video, video_stream
from .journal import Finding

# A file with a smaller share of the frames that its header promises was cut short. Containers that state only a
# length in seconds are off by a frame or two, and by more if the sound is longer.
WHOLE = 0.9


def promised_frames(container: InputContainer, reader: VideoReader) -> int | None:
    """Return how many frames the header of an open video promises, or None; ``reader`` reads the same file."""
    stream = video_stream(container)
    promised = stream.frames or round((container.duration or 0) / av.time_base * reader.timed_rate)
    if stream.frames and 'mov' in container.format.name:  # stream.frames counts what edit lists hide as well
        promised = sum(not entry.is_discard for entry in stream.index_entries)
    return promised - reader.lost if promised else None


def _packets_digest(container: InputContainer) -> str:
    """Hash the pictures alone, as the header of a copy by ``reencode`` names its source."""
    digest = hashlib.sha256()
    for packet in container.demux(video_stream(container)):
        if not packet.is_discard:
            digest.update(packet)
    return digest.hexdigest()[:32]


def _refuse_non_file(path: str) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError('is a folder')
    if os.path.getsize(path) == 0:
        raise OSError('is empty')


def inspect_video(path: str) -> Finding:
    """Count a video's frames, and decode the first, the middle and the last.

    Raises:
        Exception: of many kinds, if it cannot be read.
    """
    _refuse_non_file(path)
    try:
        reader = VideoReader(path)
        frames = len(reader)
        reader.frames([0, frames // 2, frames - 1])
    except av.FFmpegError as error:
        raise RuntimeError(error.strerror) from error  # its text alone repeats the whole path
    promised, digest = None, ''  # VideoReader decides what can be read, as in training; the digest costs little
    with suppress(av.FFmpegError), open_video(path) as container:
        promised = promised_frames(container, reader)
        digest = _packets_digest(container)
    return Finding(frames, promised, digest)


def inspect_image(path: str) -> Finding:
    """Decode an image in full.

    Raises:
        Exception: of several kinds, if it cannot be read.
    """
    _refuse_non_file(path)
    content = Path(path).read_bytes()
    decode_image(content)  # as training does
    return Finding(digest=hashlib.sha256(content).hexdigest()[:32])
