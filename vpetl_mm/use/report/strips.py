"""Small pictures of samples: the frames of a video that the model saw, an image of a file or of an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmaction.datasets.transforms import SampleFrames
from mmengine import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from ...datasets.image_reader import decode_image
from ...datasets.video_reader import VideoReader
from ...engine.entries import innermost
from ...errors import reason, tellable
from ...preparation.found import IMAGE_SUFFIXES
from .figures import address

FRAMES = 6  # of a strip
HEIGHT = 112  # of a picture, at most; and its width at most twice that
MOST_BYTES = 64 << 20  # of an image's file
Arrays = Callable[[int, int], np.ndarray]  # index and label of a sample -> [H, W, 3], uint8 RGB


@dataclass(frozen=True)
class Strip:
    """Pictures with the words for them, or why there are none."""

    pictures: tuple[tuple[str, str], ...] = ()  # address, what it shows
    why: str = ''


def strip_of(file: str, index: int, label: int, dataset: Mapping[str, Any], arrays: Arrays | None) -> Strip:
    """Return the pictures of a sample; a file that is gone or damaged leaves the reason.

    Args:
        file: the sample's, '' for one out of an array.
        index: its place in the data set.
        label: its class.
        dataset: the settings of the data set; a ``SampleFrames`` in its pipeline says which frames the model saw.
        arrays: reads samples without a file.
    """
    try:
        if not file:
            if arrays is None:
                return Strip(why='the picture is in an array of the data set')
            return Strip(((_small(arrays(index, label)), 'the image'),))
        if not Path(file).is_file():
            return Strip(why='the file is no longer there')
        if Path(file).suffix.lower() in IMAGE_SUFFIXES:
            if Path(file).stat().st_size > MOST_BYTES:
                return Strip(why='the file is too large to show')
            return Strip(((_small(decode_image(Path(file).read_bytes())[..., ::-1]), 'the image'),))
        reader = VideoReader(file)
        indices = _seen(dataset, len(reader), reader.fps)
        pictures = zip(reader.frames(indices), indices, strict=True)
        return Strip(tuple((_small(frame), f'frame {i + 1} of {len(reader)}') for frame, i in pictures))
    except Exception as error:  # decoders have many errors, and a report can do without a picture
        return Strip(why=tellable(f'it cannot be read: {reason(error, 120)}'))


def _seen(dataset: Mapping[str, Any], count: int, fps: float) -> list[int]:
    """Return at most 6 of the frames that the model sees of a video, evenly chosen, or of all its frames."""
    seen: Sequence[int] = range(count)
    pipeline = dataset.get('pipeline')
    for entry in pipeline if isinstance(pipeline, list) else ():
        if isinstance(entry, Mapping) and str(entry.get('type')).rpartition('.')[2] == 'SampleFrames':
            with suppress(Exception):  # of settings that it does not take
                given = {**{k: v for k, v in entry.items() if k != 'type'}, 'test_mode': True}
                found = SampleFrames(**given)(dict(total_frames=count, start_index=0, avg_fps=fps))['frame_inds']
                seen = sorted({int(i) for i in np.ravel(found) if 0 <= i < count}) or seen
    return [seen[round(k)] for k in np.linspace(0, len(seen) - 1, min(FRAMES, len(seen)))]


def _small(picture: np.ndarray) -> str:
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.height < HEIGHT // 2:  # such as CIFAR's
        factor = HEIGHT // image.height
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * HEIGHT, HEIGHT), Image.Resampling.LANCZOS)
    return address(image, 'JPEG', quality=82)


def arrays_of(cfg: Config) -> Arrays:
    """Return what reads the samples of the config's test set by their places; the set is built when first asked."""
    kept: list[Any] = []

    def read(index: int, label: int) -> np.ndarray:
        if not kept:
            entry = {**innermost(cfg.test_dataloader.dataset), 'pipeline': []}
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
                kept.append(DATASETS.build(entry))
        info = kept[0].get_data_info(index)
        if int(info['gt_label']) != label:
            raise ValueError('the data set has changed')
        return np.asarray(info['img'])

    return read
