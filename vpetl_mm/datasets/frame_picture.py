"""Converts a decoded frame to a picture, turned as the header asks."""

from __future__ import annotations

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

# orientation() by the quarter turns, counter-clockwise, that FFmpeg reports
TURNS = ((False, False, False), (True, False, True), (False, True, True), (True, True, False))


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Read how the header asks for a frame to be turned, to the nearest quarter turn.

    Returns:
        whether to transpose it, then whether to mirror it left to right, and top to bottom.
    """
    try:
        # frame.side_data would make a reference cycle, which keeps the frame until Python's collector runs
        matrix = SideDataContainer(frame).get('DISPLAYMATRIX')
    except ValueError:  # PyAV 18 does not know EXIF's type; it reads turns from it, but not mirroring
        return TURNS[frame.rotation // 90 % 4]
    if matrix is None:
        return TURNS[0]
    xx, xy, _, yx, yy, *_ = np.frombuffer(matrix, np.int32).tolist()
    transposed = abs(xy) + abs(yx) > abs(xx) + abs(yy)
    right, down = (yx, xy) if transposed else (xx, yy)
    return transposed, right < 0, down < 0


def picture_of(frame: av.VideoFrame, convert: VideoReformatter, like: av.VideoFrame) -> np.ndarray:
    """Convert a frame to [H, W, 3], uint8 RGB, in the size of ``like`` and turned as the header asks.

    The result is mostly a view of FFmpeg's memory. One converter for all frames of a clip takes a quarter of the
    time of ``to_ndarray``.
    """
    rgb = convert.reformat(frame, like.width, like.height, 'rgb24', threads=1)
    plane = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    picture = rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    transposed, mirrored, upside_down = shown = orientation(frame)
    if transposed:
        picture = picture.swapaxes(0, 1)
    if any(shown) or rgb is frame:
        return picture[:: -1 if upside_down else 1, :: -1 if mirrored else 1].copy()
    return picture
