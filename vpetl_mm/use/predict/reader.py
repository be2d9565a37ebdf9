"""Turns files and arrays into the inputs of a model."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.registry import TRANSFORMS, DefaultScope

from ...datasets.image_reader import decode_image
from ...datasets.worker_memory import keep_freed_memory
from ...errors import UserError, reason, tellable
from ...preparation.workers import Failed
from .arrays import as_rgb

OPENING = ('OpenVideo', 'DecordInit', 'PyAVInit')
DECODING = ('DecodeVideo', 'DecordDecode', 'PyAVDecode')
SHOWN = 8  # frames of a clip
SHOWN_HEIGHT = 270  # pixels

Source = str | os.PathLike | np.ndarray | torch.Tensor


def is_path(source: Source) -> bool:
    """Return whether an input is a path; it is an array or a tensor otherwise."""
    return isinstance(source, (str, os.PathLike))


@dataclass(frozen=True)
class Sample:
    """An input as the model takes it.

    Args:
        inputs: views [V, 3, T, H, W] of a video, or an image [3, H, W].
        frames: some of the frames that were sampled, [H, W, 3] uint8 RGB each, made small.
        times: the frames' times in seconds; empty where they are not known.
    """

    inputs: np.ndarray
    frames: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class Reader:
    """The steps of a test pipeline, from a file or an array to a :class:`Sample`.

    Args:
        pipeline: the steps. Those that open and decode are left out for arrays.
        scope: the library whose transforms they are, ``'mmaction'`` (videos) or ``'mmpretrain'`` (images).
        keep_frames: also return frames, for a picture. Defaults to False.

    Attributes:
        span: number of frames of a video that one clip covers; 1 for images.
    """

    def __init__(self, pipeline: Sequence[Mapping[str, Any]], scope: str, keep_frames: bool = False) -> None:
        self.is_video, self.keep_frames = scope == 'mmaction', keep_frames
        with DefaultScope.overwrite_default_scope(scope):
            self.steps = [(step['type'], TRANSFORMS.build(dict(step))) for step in pipeline]
            self._pick = TRANSFORMS.build(dict(type='ArrayDecode')) if self.is_video else None
        kinds = {step['type']: step for step in pipeline}
        # mmcv loads BGR; a pipeline without a loader is given what its first step turns into RGB
        self._bgr = 'LoadImageFromFile' in kinds or bool(kinds.get('NumpyToPIL', {}).get('to_rgb'))
        sampling = [step for step in pipeline if 'clip_len' in step]
        self.span = max([1, *(s['clip_len'] * s.get('frame_interval', 1) for s in sampling)])
        self._rate = max((s.get('target_fps') or 0 for s in sampling), default=0)
        self._process = 0

    def read(self, source: Source) -> Sample | Failed:
        """Return a sample, or why there is none, on one line.

        Raises:
            UserError: for an array that cannot be an input.
        """
        if os.getpid() != self._process:
            self._process = os.getpid()
            self._settle()
        source = os.fspath(source) if is_path(source) else as_rgb(source, self.is_video)
        try:
            return self._through(source)
        except UserError as error:
            return Failed(tellable(error))
        except Exception as error:  # decoders name no set of errors for a damaged file
            return Failed(tellable(f'it cannot be decoded ({type(error).__name__}: {reason(error, 160)})'))

    def _settle(self) -> None:
        """Make a worker process use one thread, as the other cores have workers of their own."""
        if multiprocessing.parent_process() is not None:
            keep_freed_memory(self._process)
            cv2.setNumThreads(0)
            torch.set_num_threads(1)

    def _through(self, source: str | np.ndarray) -> Sample:
        results, skipped = self._begin(source)
        frames, times = [], []
        if self.keep_frames and 'img' in results:
            frames = [_small(results['img'][..., ::-1] if self._bgr else results['img'])]
        for kind, step in self.steps:
            if kind in skipped:
                continue
            results = (self._pick if kind in DECODING and 'array' in results else step)(results)
            if self.keep_frames and kind in DECODING:
                frames, times = _sampled(results)
            elif self.keep_frames and kind == 'LoadImageFromFile':
                frames = [_small(results['img'][..., ::-1])]
        return Sample(results['inputs'].numpy(), frames, times)

    def _begin(self, source: str | np.ndarray) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return what the first step is given, and the steps to leave out."""
        if self.is_video:
            about = dict(label=-1, start_index=0, modality='RGB')
            if isinstance(source, str):
                return dict(about, filename=source), ()
            return dict(about, array=source, total_frames=len(source), avg_fps=self._rate), OPENING
        if isinstance(source, str) and any(kind == 'LoadImageFromFile' for kind, _ in self.steps):
            return dict(img_path=source), ()
        image = decode_image(Path(source).read_bytes())[..., ::-1] if isinstance(source, str) else source
        image = np.ascontiguousarray(image[..., ::-1] if self._bgr else image)
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2]), ('LoadImageFromFile',)


def _sampled(results: Mapping[str, Any]) -> tuple[list[np.ndarray], list[float]]:
    """Return up to eight frames of the clip in the middle, made small, and their times in seconds."""
    length, clips = results['clip_len'], results['num_clips']
    first = clips // 2 * length
    places = first + np.unique(np.linspace(0, length - 1, min(length, SHOWN)).round().astype(int))
    numbers, rate = results['frame_inds'].reshape(-1), results.get('avg_fps')
    times = [float(numbers[place] / rate) for place in places] if rate else []
    return [_small(results['imgs'][place]) for place in places], times


def _small(image: np.ndarray) -> np.ndarray:
    """Return an image at no more than 270 pixels of height, and never wider than four times that."""
    scale = min(1.0, SHOWN_HEIGHT / image.shape[0], 4 * SHOWN_HEIGHT / image.shape[1])
    size = [max(1, round(scale * side)) for side in (image.shape[1], image.shape[0])]
    return cv2.resize(np.ascontiguousarray(image, np.uint8), size, interpolation=cv2.INTER_AREA)
