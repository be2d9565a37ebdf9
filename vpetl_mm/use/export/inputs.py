"""Real clips and images, and generated ones, as the test pipeline of a bundle makes them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import Tensor

from ...datasets.demo_clips import write_clip
from ...errors import UserError, reason
from ..bundle import About
from ..views import pipeline_of

SIZES = ((180, 320), (240, 240))  # of generated inputs, (H, W) in pixels
FRAMES = 32


def read_inputs(about: About, files: Sequence[str | Path]) -> Tensor:
    """Return clips, (n, 3, T, H, W), or images, (n, 3, H, W), one view of each file, uint8 as the pipeline ends.

    Raises:
        UserError: for a file that is missing or cannot be read, or whose result has another size than the first's.
    """
    with DefaultScope.overwrite_default_scope(about.default_scope):
        pipeline = Compose(pipeline_of(about, 'fast'))
    read = [_read(about, pipeline, Path(file)) for file in files]
    for file, inputs in zip(files, read, strict=True):
        if inputs.shape != read[0].shape:
            raise UserError(
                f'{file} becomes {_size(inputs)} and {files[0]} {_size(read[0])}: an exported file takes one size.'
            )
        if inputs.dtype != torch.uint8:
            raise UserError(f'The test pipeline ends in {inputs.dtype}: an exported file takes uint8 pixels.')
    return torch.stack(read)


def _read(about: About, pipeline: Compose, file: Path) -> Tensor:
    if not file.is_file():
        raise UserError(f'{file} does not exist.')
    given = dict(img_path=str(file))
    if about.is_video:
        given = dict(filename=str(file), label=-1, start_index=0, modality='RGB')
    elif pipeline.transforms[0].__class__.__name__ != 'LoadImageFromFile':
        image = cv2.imread(str(file))
        if image is None:
            raise UserError(f'{file} cannot be read as an image.')
        bgr = getattr(pipeline.transforms[0], 'to_rgb', False)
        given = dict(img=image if bgr else image[..., ::-1].copy(), img_shape=image.shape[:2])
    try:
        inputs = pipeline(given)['inputs']
    except Exception as error:  # decoders name no set of errors for a damaged file
        kind = 'a video' if about.is_video else 'an image'
        raise UserError(f'{file} cannot be read as {kind}: {reason(error, 160)}') from error
    return inputs[0] if about.is_video else inputs


def _size(inputs: Tensor) -> str:
    return ' x '.join(map(str, inputs.shape[1:]))


def generated_inputs(about: About) -> Tensor:
    """Return two generated inputs, as :func:`read_inputs` does.

    Raises:
        UserError: when their sizes differ: the pipeline keeps that of each file.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed, size in enumerate(SIZES):
            rng = np.random.default_rng(seed)
            coarse = rng.integers(0, 256, (FRAMES if about.is_video else 1, 6, 8, 3), dtype=np.uint8)
            frames = np.stack([cv2.resize(part, size[::-1], interpolation=cv2.INTER_CUBIC) for part in coarse])
            files.append(Path(folder, f'{seed}.{"mp4" if about.is_video else "png"}'))
            if about.is_video:
                write_clip(files[-1], frames)
            else:
                cv2.imwrite(str(files[-1]), frames[0])
        try:
            return read_inputs(about, files)
        except UserError as error:
            if 'takes one size' not in str(error):
                raise
            what = 'clip' if about.is_video else 'image'
            raise UserError(
                f'The test pipeline of {about.name} keeps the size of each {what}: say which one the file is to take '
                'with --check INPUT.'
            ) from None
