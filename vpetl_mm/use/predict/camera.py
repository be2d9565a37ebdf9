"""A camera, whose latest frames are classified again and again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Thread

import cv2
import numpy as np

from ...errors import UserError


class Camera:
    """The latest frames of a camera, read in a thread so that they are the latest.

    Use it as a context. Iterating waits for new frames, and ends when the camera does.

    Args:
        source: the camera's number, from 0; or a video file, which is played at its own speed.
        frames: how many frames one prediction takes.

    Raises:
        UserError: if there is no such camera.
    """

    def __init__(self, source: int | str, frames: int) -> None:
        self.frames = frames
        with _quiet():
            self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise UserError(f'Camera {source} does not exist or is in use by another program.')
        self._pause = 0.0 if isinstance(source, int) else 1 / (self._capture.get(cv2.CAP_PROP_FPS) or 30)
        self._latest: deque[np.ndarray] = deque(maxlen=frames)
        self._news, self._unseen, self._ended = Condition(), 0, False
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(5)
        self._capture.release()

    def _watch(self) -> None:
        began, count = time.monotonic(), 0
        while not self._ended:
            there, frame = self._capture.read()
            count += 1
            time.sleep(max(0.0, began + count * self._pause - time.monotonic()) if self._pause else 0.0)
            with self._news:
                self._ended |= not there
                if there:
                    self._latest.append(frame)
                    self._unseen += 1
                self._news.notify()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the latest frames, [T, H, W, 3] uint8 RGB, whenever at least a quarter of them is new."""
        wanted = max(1, self.frames // 4)
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ended or (self._full and self._unseen >= wanted))
                if self._ended and not (self._full and self._unseen):
                    return
                self._unseen, window = 0, list(self._latest)
            yield np.stack(window)[..., ::-1]

    @property
    def _full(self) -> bool:
        return len(self._latest) == self.frames


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what OpenCV and the system's drivers print about a missing camera off standard error."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
