"""The clips of a list decoded once, in one file, for data sets of short clips that many runs read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UserError
from ..files import written_whole
from .list_file import read_list
from .petl_video_dataset import PETLVideoDataset
from .video_reader import VideoReader

SUFFIX = '.decoded'
OPENERS = ('DecordInit', 'OpenVideo')  # the steps that read a file
FORMAT = '1'


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
        UserError: if the list is missing or wrong, or clips differ in shape.
        OSError: if a clip cannot be read.
    """
    file, clips = decoded_file(ann_file), _clips_of(ann_file, folder)
    made_of = _hash(Path(p).read_bytes() for p in (ann_file, *clips))
    try:
        if _read(file).made_of == made_of:
            return file
    except UserError:
        pass  # missing or broken
    frames = [_decode(clip) for clip in clips]
    if len({f.shape for f in frames}) > 1:
        raise UserError(f'The clips of {ann_file} differ in their number or size of frames.')
    stacked = np.stack(frames)
    about = dict(format=FORMAT, made_of=made_of, frames=_hash([stacked]))
    with written_whole(file) as partial:
        partial.write_bytes(save({'frames': stacked}, about))
    return file


def _clips_of(ann_file: str | Path, folder: str | Path) -> list[str]:
    return [str(Path(folder, sample.path)) for sample in read_list(ann_file, None)]


def _decode(clip: str) -> np.ndarray:
    reader = VideoReader(clip)  # the same numbers as decord's, in a fifth of its time
    return np.stack(reader.frames(range(len(reader))))


def _hash(parts: Iterable[bytes | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))  # so that bytes cannot move from one file to the next
        digest.update(part)
    return digest.hexdigest()


class _Decoded(NamedTuple):
    frames: np.ndarray
    made_of: str


def _read(file: Path) -> _Decoded:
    """Read a file of decoded clips; :class:`UserError` if it is missing or not as it was written."""
    try:
        with safe_open(file, framework='numpy') as opened:
            about, frames = opened.metadata() or {}, opened.get_tensor('frames')
    except (OSError, SafetensorError) as error:
        raise UserError(f'The decoded clips {file} cannot be read ({error}); "make demo" makes them.') from error
    if about.get('format') != FORMAT or about.get('frames') != _hash([frames]):
        raise UserError(f'The decoded clips {file} are broken; "make demo" makes them again.')
    return _Decoded(frames, about.get('made_of', ''))


class DecodedVideoDataset(PETLVideoDataset):
    """A list of clips whose frames are taken from memory, all of them, instead of from their files.

    The pipeline is that of files: its first step, which opens a video, hands on the decoded frames instead.

    Args:
        decoded: the file of :func:`decode_clips`.
        kwargs: arguments of :class:`PETLVideoDataset`.

    Raises:
        UserError: if the file is missing or broken, or is not that of the list.
    """

    def __init__(self, *args: Any, decoded: str, **kwargs: Any) -> None:
        self.decoded = Path(decoded)
        super().__init__(*args, **kwargs)
        opened = [i for i, step in enumerate(self.pipeline.transforms) if type(step).__name__ in OPENERS]
        for place in opened:
            self.pipeline.transforms[place] = OpenDecoded(self._frames())

    def _frames(self) -> dict[str, np.ndarray]:
        clips, frames = _clips_of(self.ann_file, self.data_prefix['video'] or ''), _read(self.decoded).frames
        if len(clips) != len(frames):
            raise UserError(f'{self.decoded} has {len(frames)} clips and {self.ann_file} {len(clips)}.')
        return dict(zip(clips, frames, strict=True))


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
