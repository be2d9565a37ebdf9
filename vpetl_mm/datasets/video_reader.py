"""Reads the frames of a video by number and decodes as little as that takes."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice, repeat
from os import PathLike

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from .frame_order import distinct, order_by_kind, order_by_time, unpacked
from .frame_picture import picture_of

# Their headers say all that is needed; for others FFmpeg decodes a few frames to learn the rest.
COMPLETE_HEADERS = ('.m4v', '.mkv', '.mov', '.mp4', '.webm')
HEADERS_ALONE = {'probesize': '32', 'analyzeduration': '0', 'skip_frame': 'all'}
# Containers that hold a whole video; others, such as playlists, name further files, which FFmpeg would open
FORMATS = (
    'amv,asf,av1,avi,cavsvideo,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,mpeg,'
    'mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,swf,vc1,vc1test,vvc,wtv,yuv4mpegpipe'
)
MOST_PIXELS = 1 << 26  # of a frame, twice as many as in 8K; a file of kilobytes can hold frames of 400 MB
# Codecs of which FFmpeg can leave out frames that no other refers to, without a trace in the rest
SKIPPING = ('h264', 'mpeg4')


class VideoReader:
    """One local video file, whose packets are read at once and whose frames are decoded on demand.

    Frame ``i`` is the i-th that a player shows: frames that an edit list hides, or that lost the frames they refer to
    when the video was cut, do not count. A packet without a frame, as at the end of DivX files, repeats the frame
    before. Iterating yields every frame as ``av.VideoFrame``, decoded from the start.

    Attributes:
        fps: frames per second, 0 if the file does not say.
        lost: number of frames at the beginning that a cut left without the frames they refer to.

    Raises:
        OSError: if the file does not exist, holds no video, or has no decoder.
        av.FFmpegError: if it cannot be read.
    """

    def __init__(self, path: str | PathLike) -> None:
        self._path, self.lost = path, 0
        self._open(quick=True)
        self._count = sum(not packet.is_discard for packet in self._packets)
        if not self._count:
            raise OSError('there are no frames in it')
        self._order = self._find_order()
        self._count -= self.lost
        if self._order is None and not (self._packets[0].is_keyframe and distinct(self._packets)):
            self._open(quick=False)
            self._count = sum(1 for _ in self._decoded(0, len(self._packets)))
            if not self._count:
                raise OSError('no frame of it can be decoded')

    def _open(self, quick: bool) -> None:
        """Read the packets; with ``quick``, learn no more from the file than decoding a few of them takes."""
        self._headers_alone = quick and str(self._path).lower().endswith(COMPLETE_HEADERS)
        options = HEADERS_ALONE if self._headers_alone else {}
        with open_video(self._path, options) as container:
            if self._headers_alone and len(container.streams.video) > 1:
                return self._open(quick=False)
            stream = video_stream(container)
            self._codec = stream.codec_context
            self._codec.thread_count = 1  # the loader's workers are the parallel part
            self._codec.options = {'max_pixels': str(MOST_PIXELS)}
            self._packets = self._read(container, stream)
            self.fps = float(stream.average_rate or self.timed_rate)
        self._first_key = next((place for place, packet in enumerate(self._packets) if packet.is_keyframe), 0)

    def _read(self, container: InputContainer, stream: av.VideoStream) -> list[av.Packet]:
        packets, left = [], 2 * os.path.getsize(self._path) + (1 << 20)
        for packet in container.demux(stream):
            left -= packet.size
            if left < 0:  # an index may name the same bytes again and again
                raise OSError('its frames would take more than twice its size')
            if packet.size:
                packets.append(packet)
        return packets

    def _find_order(self) -> list[int] | None:
        """Sort the places of the packets by when their frames are shown; None if the packets do not tell."""
        order = order_by_time(self._packets, self._codec.has_b_frames)
        if order is None and self._codec.name == 'mpeg4':
            self._packets = unpacked(self._packets)
            order = order_by_kind(self._packets)
        return order and self._without_lost(order)

    def _without_lost(self, order: list[int]) -> list[int] | None:
        """Drop what a cut left at the beginning and cannot be decoded; None if more may be lost."""
        key, packets = self._first_key, self._packets
        if key == 0 and packets[0].is_keyframe and packets[order[0]].pts >= packets[0].pts:
            return order
        early = [place for place in order if place < key or packets[place].pts < packets[key].pts]
        try:
            shown = {frame.pts for frame in self._decoded(0, max(key, *early) + 1)}
        except av.FFmpegError:
            return None
        if packets[key].pts not in shown and not packets[key].is_discard:
            return None
        lost = [place for place in early if packets[place].pts not in shown]
        self.lost = len(lost)
        return [place for place in order if place not in lost] or None

    @property
    def timed_rate(self) -> float:
        """Frames per second by the times of the packets, 0 without times."""
        times = [float(packet.pts * packet.time_base) for packet in self._packets if packet.pts is not None]
        span = max(times, default=0) - min(times, default=0)
        return (len(times) - 1) / span if span else 0.0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return islice(self._in_turn(), self._count)

    def _in_turn(self) -> Iterator[av.VideoFrame]:
        if self._headers_alone:
            self._open(quick=False)
        ranks = {self._packets[place].pts: rank for rank, place in enumerate(self._order or ())}
        shown, before = 0, None
        for frame in self._decoded(0, len(self._packets)):
            rank = ranks.get(frame.pts, shown)
            if before is None and rank > 0:
                raise OSError('its first frames cannot be decoded')
            yield from repeat(before, rank - shown)
            if rank >= shown:
                yield frame
            shown, before = max(shown, rank + 1), frame
        if before is None:
            raise OSError('no frame of it can be decoded')
        yield from repeat(before, self._count - shown)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return frames [H, W, 3], uint8 RGB, in the order of ``indices``; all have the size of the first.

        Raises:
            IndexError: for an index outside [0, len).
            OSError: if nothing can be decoded.
            av.FFmpegError: if a frame on the way is damaged beyond use.
        """
        wanted = sorted({int(index) for index in indices})
        if not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f'frames {wanted[0]} to {wanted[-1]} are out of range: the video has {len(self)}')
        found = self._by_order(wanted)
        if found is None:
            every = enumerate(islice(self, wanted[-1] + 1))
            found = {index: frame for index, frame in every if index in wanted}
        convert, like = VideoReformatter(), found[wanted[0]]
        # a repeated index is converted twice: later transforms may work in place
        return [picture_of(found[int(index)], convert, like) for index in indices]

    def _by_order(self, wanted: list[int]) -> dict[int, av.VideoFrame] | None:
        """Decode the wanted frames from the key frames before them; None if that does not yield them all."""
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
        """Return ranges of packets, each from a key frame on, that cover the packets at ``places``."""
        packets = self._packets
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe and packet.pts is not None]
        runs: list[tuple[int, int]] = []
        for place in places:
            # a frame shown before the key frame that it follows needs the key frame before that
            before = (key for key in reversed(keys) if key <= place and packets[key].pts <= packets[place].pts)
            first = next(before, 0)
            while runs and first <= runs[-1][1]:
                first = min(first, runs.pop()[0])
            runs.append((first, place + 1))
        return runs

    def _decoded(self, first: int, end: int, needed: Container[int] | None = None) -> Iterator[av.VideoFrame]:
        """Decode a range of packets, leaving out as many frames not ``needed`` (by time) as can be."""
        if self._codec.is_open:
            self._codec.flush_buffers()  # forgets what an earlier range left behind
        for place in range(first, end):
            packet = self._packets[place]
            if self._codec.name in SKIPPING:
                self._codec.skip_frame = 'DEFAULT' if needed is None or packet.pts in needed else 'NONREF'
            try:
                yield from self._codec.decode(packet)
            except av.FFmpegError:
                if place >= self._first_key:  # players skip what a cut left before it
                    raise
        yield from self._codec.decode(None)


def open_video(path: str | PathLike, options: Mapping[str, str] | None = None) -> InputContainer:
    """Open a local file with FFmpeg and ``options``; no other file is opened, whatever this one names.

    Raises:
        av.FFmpegError: if it cannot be read or is not a video.
    """
    # with file: in front, as a name may look like an address
    options = {'format_whitelist': FORMATS, **(options or {})}
    return av.open(f'file:{path}', metadata_errors='ignore', options=options)


def video_stream(container: InputContainer) -> av.VideoStream:
    """Return the stream of an open file that a player shows; a cover picture does not count.

    Raises:
        OSError: if there is no stream, or no decoder for it.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise OSError('there is no video in it')
    best = container.streams.best('video')
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise OSError('there is no decoder for its codec')
    return stream
