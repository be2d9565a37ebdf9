"""The frames of a video by number, with as little decoded as that takes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from os import PathLike

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .frame_order import order_by_kind, order_by_time, unpacked

# The headers of these say all that is needed; FFmpeg otherwise decodes a few frames to learn the rest.
COMPLETE_HEADERS = ('.m4v', '.mkv', '.mov', '.mp4', '.webm')
HEADERS_ALONE = {'probesize': '32', 'analyzeduration': '0', 'skip_frame': 'all'}
# Codecs whose frames that no other frame refers to FFmpeg can leave out without a trace in the rest
SKIPPING = ('h264', 'mpeg4')


class VideoReader:
    """One video file; its packets are read at once, its frames decoded when they are asked for.

    Frame ``i`` is the i-th that decoding the whole file gives. Packets are counted, as decord does, so that
    where some hold no frame the last one stands in for those at the end.

    Args:
        path: a local file.

    Attributes:
        fps: frames per second, 0 where the file does not say.

    Raises:
        OSError: when there is no such file, no video in it, or no decoder for it.
        av.FFmpegError: when it cannot be read.
    """

    def __init__(self, path: str | PathLike) -> None:
        self._path = path
        self._open(quick=True)

    def _open(self, quick: bool) -> None:
        """Read the packets; ``quick`` is to learn no more than it takes to decode a few of them."""
        alone = quick and str(self._path).lower().endswith(COMPLETE_HEADERS)
        options = HEADERS_ALONE if alone else {}
        # file: as a name may look like an address; FFmpeg then opens local files alone, playlists' included
        with av.open(f'file:{self._path}', metadata_errors='ignore', options=options) as container:
            stream = container.streams.best('video')
            if stream is None:
                raise OSError('there is no video in it')
            if stream.codec_context is None:
                raise OSError('there is no decoder for its codec')
            self._codec = stream.codec_context
            self._codec.thread_count = 1  # the loader's workers are the parallel part
            self._packets = [packet for packet in container.demux(stream) if packet.size]
            if not self._packets:
                raise OSError('there are no frames in it')
            self._count = len(self._packets)
            self.fps = float(stream.average_rate or _rate(self._packets))
            self._order = order_by_time(self._packets, self._codec.has_b_frames) if quick else None
            if quick and self._order is None and self._codec.name == 'mpeg4':
                self._packets = unpacked(self._packets, stream)
                self._order = order_by_kind(self._packets)

    def __len__(self) -> int:
        return self._count

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Frames [H, W, 3], uint8 RGB, in the order of ``indices``; all have the size of the first.

        Raises:
            IndexError: for an index outside [0, len).
            OSError: when nothing can be decoded.
            av.FFmpegError: when a frame on the way is damaged beyond use.
        """
        wanted = sorted({int(index) for index in indices})
        if not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f'there are no frames {wanted[0]} to {wanted[-1]} among {len(self)}')
        found = self._by_order(wanted)
        if found is None:
            found = self._from_the_start(wanted)
        convert, like = VideoReformatter(), found[wanted[0]]
        # an index that comes twice is converted twice: later transforms may work in place
        return [_picture(found[int(index)], convert, like) for index in indices]

    def _by_order(self, wanted: list[int]) -> dict[int, av.VideoFrame] | None:
        """The wanted frames, decoded from the key frames before them; None where that does not give them all."""
        if self._order is None:
            return None
        last = len(self._order) - 1
        places = {index: self._order[min(index, last)] for index in wanted}
        found: dict[int, av.VideoFrame] = {}
        needed = {self._packets[place].pts for place in places.values()}
        try:
            for first, end in self._runs(sorted(set(places.values()))):
                found.update((f.pts, f) for f in self._decoded(first, end, needed) if f.pts in needed)
        except av.FFmpegError:
            return None
        if len(found) < len(needed):
            return None
        return {index: found[self._packets[place].pts] for index, place in places.items()}

    def _runs(self, places: list[int]) -> list[tuple[int, int]]:
        """Ranges of packets, each from a key frame on, that give the frames of the packets at ``places``."""
        rank = {place: index for index, place in enumerate(self._order)}
        keys = [place for place in sorted(rank) if self._packets[place].is_keyframe]
        runs: list[tuple[int, int]] = []
        for place in places:
            # a frame that is shown before the key frame that it follows needs the one before that
            first = max((key for key in keys if key <= place and rank[key] <= rank[place]), default=0)
            while runs and first <= runs[-1][1]:
                first = min(first, runs.pop()[0])
            runs.append((first, place + 1))
        return runs

    def _decoded(self, first: int, end: int, needed: Container[int] | None = None) -> Iterator[av.VideoFrame]:
        """The frames of a range of packets; of those not ``needed`` (by time), as many as can be are left out."""
        if self._codec.is_open:
            self._codec.flush_buffers()  # forgets what an earlier range left behind
        for packet in self._packets[first:end]:
            if self._codec.name in SKIPPING:
                self._codec.skip_frame = 'DEFAULT' if needed is None or packet.pts in needed else 'NONREF'
            yield from self._codec.decode(packet)
        yield from self._codec.decode(None)

    def _from_the_start(self, wanted: list[int]) -> dict[int, av.VideoFrame]:
        """The wanted frames, counted from the first on."""
        self._open(quick=False)
        found, frame = {}, None
        for count, frame in enumerate(self._decoded(0, len(self._packets))):
            if count in wanted:
                found[count] = frame
            if count == wanted[-1]:
                break
        if frame is None:
            raise OSError('no frame of it can be decoded')
        return {index: found.get(index, frame) for index in wanted}


def _rate(packets: list[av.Packet]) -> float:
    """Frames per second by the packets' times, 0 without them."""
    times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
    lasts = max(times, default=0) - min(times, default=0)
    return (len(times) - 1) / lasts if lasts else 0.0


def _picture(frame: av.VideoFrame, convert: VideoReformatter, like: av.VideoFrame) -> np.ndarray:
    """A frame as [H, W, 3], uint8 RGB, in the size of ``like`` and turned as the header asks for.

    Mostly a view of FFmpeg's memory. One converter for all of a clip's frames takes a quarter of the time of
    ``to_ndarray``.
    """
    rgb = convert.reformat(frame, like.width, like.height, 'rgb24', threads=1)
    plane = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    picture = rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    quarters = frame.rotation // 90 % 4
    if quarters or rgb is frame:
        return np.rot90(picture, quarters).copy()
    return picture
