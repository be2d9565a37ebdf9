"""A clip, played as if it were a camera."""

from __future__ import annotations

import cv2
import numpy as np
from tiny import refused

from vpetl_mm.use.predict.camera import Camera


def frames_of(path) -> list[np.ndarray]:
    """All frames in RGB, by OpenCV alone."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


def test_every_window_is_a_run_of_the_latest_frames(drawn_clips):
    every = frames_of(drawn_clips[0])
    seen = []
    with Camera(str(drawn_clips[0]), 4) as camera:
        for window in camera:
            assert window.shape == (4, 32, 32, 3) and window.dtype == np.uint8
            ends = [i for i in range(4, len(every) + 1) if np.array_equal(window, np.stack(every[i - 4 : i]))]
            assert ends, 'its frames are not four in a row'
            seen.append(ends[0])
    assert seen == sorted(set(seen)) and seen[-1] == len(every) and len(seen) > 1


def test_a_camera_that_ends_early_or_is_left_early(drawn_clips):
    with Camera(str(drawn_clips[0]), 1000) as camera:
        assert list(camera) == []
    with Camera(str(drawn_clips[0]), 1) as camera:
        next(iter(camera))


def test_a_camera_that_is_not_there(capfd):
    with refused('Camera 77 does not exist'):
        Camera(77, 8)
    assert capfd.readouterr() == ('', '')
