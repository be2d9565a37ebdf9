"""mmaction2's VideoDataset with checked lists, which replaces unreadable videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import decord
from mmaction.datasets import VideoDataset

from ..errors import UserError, reason, tellable
from .holdout import Holdout
from .list_file import read_list

# what the readers and the transforms behind them raise on a broken file; a wrong config raises other things
UNREADABLE = (av.FFmpegError, decord.DECORDError, OSError, EOFError, RuntimeError, IndexError, ZeroDivisionError)


class PETLVideoDataset(Holdout, VideoDataset):
    """Videos and labels from a text file of ``path label`` lines.

    In training an unreadable video is replaced by another, drawn at random. In testing it takes the frames of the
    next readable one and is marked, so that it counts as wrong. In both cases its path is in the sample's
    ``skipped``.

    Args:
        ann_file: the list. Paths may contain spaces: the label is what follows the last one.
        num_classes: labels must lie in [0, num_classes).
        kwargs: arguments of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmaction2's VideoDataset.

    Raises:
        UserError: if the list is missing or empty, a line has no label, or a label lies outside the classes.
    """

    def load_data_list(self) -> list[dict]:
        """Return the annotated videos, ``dict(filename=..., label=...)`` each."""
        folder = self.data_prefix['video'] or ''
        samples = read_list(self.ann_file, self.num_classes, self.delimiter)
        return [dict(filename=str(Path(folder, path)), label=label) for path, label in samples]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the class of a sample in a list, as mmengine's ClassBalancedDataset asks for it."""
        return [int(self.get_data_info(idx)['label'])]

    def __getitem__(self, index: int) -> dict:
        """Return the packed sample ``dict(inputs=..., data_samples=...)``."""
        if not self._fully_initialized:
            self.full_init()
        skipped: list[str] = []
        for candidate in self._candidates(index):
            try:
                sample = self.prepare_data(candidate)
            except UNREADABLE as error:
                told = f'{type(error).__name__}: {reason(error, 120)}'
                skipped.append(tellable(f'{self.get_data_info(candidate)["filename"]} ({told})'))
                continue
            return self._label(sample, index, skipped)
        raise UserError(
            f'{len(skipped)} videos in a row cannot be decoded, from {skipped[0]} on; '
            'is the folder of the videos (data_prefix) right?'
        )

    def _candidates(self, index: int) -> Iterator[int]:
        yield index
        for step in range(1, min(self.max_refetch, len(self)) + 1):
            yield (index + step) % len(self) if self.test_mode else self._rand_another()

    def _label(self, sample: dict, index: int, skipped: list[str]) -> dict:
        """Note the skipped videos on the sample; in testing, give it the label of ``index``."""
        about = sample['data_samples']
        if self.test_mode:
            info = self.get_data_info(index)
            about.set_gt_label(info['label'])
            about.set_metainfo(dict(filename=info['filename'], skipped=tuple(skipped[:1])))
        elif skipped:
            about.set_metainfo(dict(skipped=tuple(skipped)))
        return sample
