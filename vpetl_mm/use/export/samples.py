"""Real and generated inputs, after the test pipeline of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...preparation.workers import Failed
from ..bundle.bundle import About
from ..bundle.views import pipeline_of
from ..predict.inputs import find_inputs
from ..predict.reader import Reader, Source

SIZES = ((180, 320), (240, 240))  # of generated inputs, (H, W) in pixels
FRAMES = 32


def read_inputs(about: About, given: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the names and the pixels of files, folders or patterns, one view of each file.

    Returns:
        The paths, and clips of (n, 3, T, H, W) or images of (n, 3, H, W), uint8, as the pipeline ends.

    Raises:
        UserError: for a file that is missing, of the other kind or cannot be read, or that becomes another size than
            the first.
    """
    files = [file for found in find_inputs(given, about) for file in found]
    read = list(_read(about, files))
    for file, inputs in zip(files, read, strict=True):
        if inputs.shape != read[0].shape:
            raise UserError(
                f'{file} becomes {_size(inputs)} and {files[0]} {_size(read[0])}: an exported file takes one size.'
            )
    return files, torch.stack(read)


def generated_inputs(about: About) -> Tensor:
    """Return two generated inputs, as :func:`read_inputs` does.

    Raises:
        UserError: when their sizes differ: the pipeline keeps that of each file.
    """
    drawn = []
    for seed, size in enumerate(SIZES):
        coarse = np.random.default_rng(seed).integers(0, 256, (FRAMES, 6, 8, 3), dtype=np.uint8)
        frames = [cv2.resize(part, size[::-1], interpolation=cv2.INTER_CUBIC) for part in coarse]
        drawn.append(np.stack(frames) if about.is_video else frames[0])
    first, second = _read(about, drawn)
    if first.shape != second.shape:
        raise UserError(
            f'The test pipeline of {about.name} keeps the size of each {about.media}, and an exported file takes one '
            f'size: give an input of that size with --check.'
        )
    return torch.stack([first, second])


def _read(about: About, sources: Iterable[Source]) -> Iterable[Tensor]:
    reader = Reader(pipeline_of(about, 'fast'), about.default_scope)
    for source in sources:
        sample = reader.read(source)
        if isinstance(sample, Failed):
            raise UserError(f'{source}: {sample.reason}')
        inputs = torch.from_numpy(sample.inputs)
        if inputs.dtype != torch.uint8:
            raise UserError(f'The test pipeline ends in {inputs.dtype}: an exported file takes uint8 pixels.')
        yield inputs[0] if about.is_video else inputs


def _size(inputs: Tensor) -> str:
    return ' x '.join(map(str, inputs.shape[1:]))
