"""mmaction2's VideoDataset that says what is wrong with its list and survives unreadable videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import av
import decord
from mmaction.datasets import VideoDataset

from ..errors import UserError, tellable
from .holdout import Holdout

# what the readers and the transforms behind them raise on a broken file; a wrong config raises other things
UNREADABLE = (av.FFmpegError, decord.DECORDError, OSError, EOFError, RuntimeError, IndexError, ZeroDivisionError)


def _told(path: str, error: Exception) -> str:
    """A path and why it cannot be read, fit for any log file and terminal."""
    reason = (str(error).strip().splitlines() or [''])[-1][:120]
    return tellable(f'{path} ({type(error).__name__}: {reason})')


class PETLVideoDataset(Holdout, VideoDataset):
    """Videos and labels from a text file of ``path label`` lines.

    In training an unreadable video is replaced by another, drawn at random; in testing by the next readable
    one, for its shape, and marked so that it counts as wrong. Either way its path stands in the sample's
    ``skipped``.

    Args:
        ann_file: the list; names may contain spaces, the label is what follows the last one.
        num_classes: labels must lie in [0, num_classes).
        kwargs: of :class:`Holdout` (holdout, held_out, holdout_seed) and of mmaction2's VideoDataset.

    Raises:
        UserError: for a list that is missing or empty, a line without a label, or a label outside the classes.
    """

    def load_data_list(self) -> list[dict]:
        """The annotated videos, ``dict(filename=..., label=...)`` each."""
        if not Path(self.ann_file).is_file():
            raise UserError(f'The annotation file {self.ann_file} does not exist.')
        lines = Path(self.ann_file).read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
        data = [self._parse(n, line) for n, line in enumerate(lines, 1) if line.strip()]
        if not data:
            raise UserError(f'The annotation file {self.ann_file} is empty.')
        return data

    def _parse(self, number: int, line: str) -> dict:
        filename, _, label = line.strip().rpartition(self.delimiter)
        where = f'{self.ann_file}, line {number}'
        if not filename or '\0' in filename or not re.fullmatch('-?[0-9]{1,9}', label):
            raise UserError(f'{where} has no label: {line.strip()!r}; a line is "path{self.delimiter}label".')
        if int(label) < 0 or (self.num_classes is not None and int(label) >= self.num_classes):
            last = 'n' if self.num_classes is None else self.num_classes - 1
            raise UserError(f'{where}: label {label} is outside the classes 0 to {last} (num_classes).')
        return dict(filename=str(Path(self.data_prefix['video'] or '', filename.strip())), label=int(label))

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample, for mmengine's ClassBalancedDataset."""
        return [int(self.get_data_info(idx)['label'])]

    def __getitem__(self, index: int) -> dict:
        """The packed sample ``dict(inputs=..., data_samples=...)``."""
        if not self._fully_initialized:
            self.full_init()
        skipped: list[str] = []
        for candidate in self._candidates(index):
            try:
                sample = self.prepare_data(candidate)
            except UNREADABLE as error:
                skipped.append(_told(self.get_data_info(candidate)['filename'], error))
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
        """Note on the sample what was skipped for it; in testing it stays the sample that was asked for."""
        info = self.get_data_info(index)
        about = sample['data_samples']
        if self.test_mode:
            about.set_gt_label(info['label'])
            about.set_metainfo(dict(filename=info['filename'], skipped=tuple(skipped[:1])))
        elif skipped:
            about.set_metainfo(dict(skipped=tuple(skipped)))
        return sample
