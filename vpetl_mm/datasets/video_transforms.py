"""Pipeline steps that open and decode a video, instead of mmaction2's DecordInit and DecordDecode."""

from __future__ import annotations

import os

from mmcv.transforms import BaseTransform

from .video_reader import VideoReader
from .worker_memory import keep_freed_memory


class OpenVideo(BaseTransform):
    """Opens ``filename`` and adds ``video_reader``, ``total_frames`` and ``avg_fps``.

    A name without a suffix means an mp4 file, as everywhere in mmaction2, unless there is a file of that name.
    """

    def transform(self, results: dict) -> dict:
        """Return the sample with its open video."""
        keep_freed_memory(os.getpid())
        name = results['filename']
        whole = os.path.splitext(name)[1] or os.path.isfile(name)
        reader = VideoReader(name if whole else f'{name}.mp4')
        results.update(video_reader=reader, total_frames=len(reader), avg_fps=reader.fps)
        return results


class DecodeVideo(BaseTransform):
    """Decodes the frames ``frame_inds`` and adds ``imgs``, ``original_shape`` and ``img_shape``."""

    def transform(self, results: dict) -> dict:
        """Return the sample with its frames, [H, W, 3] uint8 RGB each."""
        frames = results['video_reader'].frames(results['frame_inds'].reshape(-1))
        shape = frames[0].shape[:2]
        results.update(video_reader=None, imgs=frames, original_shape=shape, img_shape=shape)
        return results
