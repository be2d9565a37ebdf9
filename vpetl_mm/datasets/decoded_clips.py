"""The clips of a list decoded once, in one file, for data sets of short clips that many runs read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UserError, reason
from ..files import from_json, written_whole
from .list_file import read_list
from .petl_video_dataset import UNREADABLE, PETLVideoDataset
from .video_reader import VideoReader

SUFFIX = '.decoded'
OPENERS = ('DecordInit', 'OpenVideo')  # the steps that read a file
ABOUT = 'about'  # in the file's header: its hashes, as JSON


def decoded_file(ann_file: str | Path) -> Path:
    """Return where the decoded clips of a list are kept: beside it."""
    return Path(f'{ann_file}{SUFFIX}')


def decode_clips(ann_file: str | Path, folder: str | Path) -> Path:
    """Decode every clip of a list, unless this has been done; return the file.

    The file holds ``frames`` [N, T, H, W, 3] (uint8 RGB, in the order of the list), a hash of them, and one of the
    list and the clips that they were decoded from. It is written whole or not at all. One that is broken, or was
    made of another list or of other clips, is made again.

    Args:
        ann_file: the list.
        folder: where its paths start. All clips have the same number and size of frames.

    Raises:
        UserError: if the list is missing or wrong, a clip cannot be decoded, or clips differ in shape.
    """
    file, clips = decoded_file(ann_file), _clips_of(ann_file, folder)
    made_of = _hash(Path(p).read_bytes() for p in (ann_file, *clips))
    with suppress(UserError):  # missing or broken
        _read(file, made_of)
        return file
    frames = [_decode(clip) for clip in clips]
    if len({f.shape for f in frames}) > 1:
        raise UserError(f'The clips of {ann_file} differ in their number or size of frames.')
    stacked = np.stack(frames)
    about = json.dumps(dict(made_of=made_of, frames=_hash([stacked.tobytes()])))
    with written_whole(file) as partial:
        partial.write_bytes(save({'frames': stacked}, {ABOUT: about}))
    return file


def _clips_of(ann_file: str | Path, folder: str | Path) -> list[str]:
    return [str(Path(folder, sample.path)) for sample in read_list(ann_file, None)]


def _decode(clip: str) -> np.ndarray:
    try:
        reader = VideoReader(clip)  # the same numbers as decord's, in a fifth of its time
        return np.stack(reader.frames(range(len(reader))))
    except UNREADABLE as error:
        raise UserError(f'The clip {clip} cannot be decoded ({reason(error, 120)}).') from error


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))  # so that bytes cannot move from one file to the next
        digest.update(part)
    return digest.hexdigest()


def _read(file: Path, made_of: str) -> np.ndarray:
    """Return the frames of a file; :class:`UserError` if it is missing, broken, or made of something else."""
    try:
        with safe_open(file, framework='numpy') as opened:
            about, frames = from_json((opened.metadata() or {})[ABOUT]), opened.get_tensor('frames')
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f'The decoded clips {file} cannot be read ({error}); "make demo" makes them.') from error
    if about != dict(made_of=made_of, frames=_hash([frames.tobytes()])):
        raise UserError(f'The decoded clips {file} are broken, or of other clips; "make demo" makes them again.')
    return frames


class DecodedVideoDataset(PETLVideoDataset):
    """A list of clips whose frames are taken from memory, all of them, instead of from their files.

    The pipeline is that of files: its first step, which opens a video, hands on the decoded frames instead.

    Args:
        kwargs: arguments of :class:`PETLVideoDataset`, whose list :func:`decode_clips` has decoded.

    Raises:
        UserError: if the decoded clips are missing, broken, or not those of the list.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        steps = self.pipeline.transforms
        for place, step in enumerate(steps):
            if type(step).__name__ in OPENERS:
                steps[place] = OpenDecoded(self._frames())

    def _frames(self) -> dict[str, np.ndarray]:
        clips = _clips_of(self.ann_file, self.data_prefix['video'] or '')
        made_of = _hash(Path(p).read_bytes() for p in (self.ann_file, *clips))
        return dict(zip(clips, _read(decoded_file(self.ann_file), made_of), strict=True))


class OpenDecoded(BaseTransform):
    """Adds the decoded frames of ``filename`` as ``video_reader``, with ``total_frames`` and ``avg_fps``.

    Args:
        frames: file name -> frames [T, H, W, 3], uint8 RGB.
    """

    def __init__(self, frames: dict[str, np.ndarray]) -> None:
        self.frames = frames

    def transform(self, results: dict) -> dict:
        """Return the sample with its frames."""
        frames = self.frames[results['filename']]
        results.update(video_reader=_Frames(frames), total_frames=len(frames), avg_fps=float(len(frames)))
        return results


class _Frames:
    """Frames [T, H, W, 3] with the two methods of readers that the decoding steps call."""

    def __init__(self, frames: np.ndarray) -> None:
        self._all = frames

    def get_batch(self, indices: Sequence[int]) -> _Frames:
        """Return the frames at ``indices``, as decord's reader does."""
        return _Frames(self._all[np.asarray(indices)])

    def asnumpy(self) -> np.ndarray:
        """Return the frames."""
        return self._all

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the frames at ``indices``, as our reader does."""
        return list(self._all[np.asarray(indices)])
