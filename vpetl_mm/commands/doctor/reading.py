"""Whether the files of the lists can be read, and how long that takes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import torch
from mmengine import Config
from torch.utils.data import Dataset

from ...engine.entries import at
from ...engine.launch import available_cores
from ...errors import tellable
from ...preparation.progress import progress
from ...preparation.workers import Failed, each
from .lists import Split
from .overlap import Listed
from .verdict import NOTE, OK, WRONG, Verdict, some

SECONDS = 120  # for one sample
SHARE = 8  # samples that are worth a process
MORE = 8  # times as many are read once one is unreadable, so that the share is known better


@dataclass
class Reading:
    """What came of reading samples of a split through its pipeline.

    Args:
        split: which.
        order: the samples in the order in which they were drawn.
        seconds: of each sample that was read, by its index, in a process of its own.
        failed: why a sample cannot be read, by its index.
        replaced: the failed ones for which the data set gives another sample.
    """

    split: Split
    order: list[int] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    replaced: set[int] = field(default_factory=set)

    @property
    def good(self) -> list[int]:
        """The samples that were read, in the order in which they were drawn."""
        return [index for index in self.order if index in self.seconds]

    @property
    def tried(self) -> int:
        """How many were read, or not."""
        return len(self.seconds) + len(self.failed)

    def stops(self, allowed: float) -> bool:
        """Tell whether training or testing would suffer: more are replaced than allowed, or one is not replaced."""
        return {*self.failed} != self.replaced or len(self.failed) > allowed * self.tried


def read_samples(split: Split, count: int) -> Reading:
    """Read the first sample and others, drawn at random; more of them if one cannot be read.

    Args:
        split: its data set reads them.
        count: how many, at most all.
    """
    rest = random.Random(0).sample(range(1, len(split.labels)), len(split.labels) - 1)
    order = [0, *rest]
    reading = Reading(split, order)
    _read(reading, order[:count])
    if reading.failed:
        _read(reading, order[count : MORE * count])
    return reading


def _read(reading: Reading, indices: Sequence[int]) -> None:
    task = partial(_one, reading.split.dataset)
    workers = min(available_cores(), math.ceil(len(indices) / SHARE))
    with progress(f'reading {reading.split.name}', len(indices)) as advance:
        for index, result in each(task, indices, workers, SECONDS):
            advance(1)
            if isinstance(result, Failed):
                reading.failed[index] = f'{reading.split.files[index] or f"sample {index}"} ({result.reason})'
            elif isinstance(result, str):
                reading.failed[index] = result
                reading.replaced.add(index)
            else:
                reading.seconds[index] = result


def _one(dataset: Dataset, index: int) -> float | str:
    """Return the seconds that a sample takes, or why the data set gave another one instead."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    started = time.perf_counter()
    sample = dataset[index]
    about = sample.get('data_samples') if isinstance(sample, Mapping) else None
    skipped = getattr(about, 'metainfo', {}).get('skipped')
    return tellable(skipped[0]) if skipped else time.perf_counter() - started


def check_reading(cfg: Config, readings: Sequence[Reading], missing: Sequence[Listed]) -> Verdict:
    """Tell how many samples cannot be read.

    Args:
        cfg: the experiment, whose hook says which share of videos may be unreadable.
        readings: of the splits.
        missing: listed files that do not exist, of all samples.
    """
    allowed = at(cfg, 'default_hooks.unreadable_video.max_share')
    allowed = 0.01 if allowed is None else allowed
    counts = ', '.join(f'{r.tried:,} of {len(r.split.labels):,} in {r.split.name}' for r in readings)
    failed = [(r.split.name, why) for r in readings for why in r.failed.values()]
    absent = [p for p in missing if not any(p.name in why for _, why in failed)]
    if not failed and not absent:
        return Verdict('readable', OK, f'{counts}: all that were tried')
    lines = [f'{name}: {why}' for name, why in failed] + [f'{p.split}: {p.name} does not exist' for p in absent]
    shares = '; '.join(
        f'{len(r.failed)} of {r.tried:,} in {r.split.name} ({len(r.failed) / r.tried:.1%}) cannot be read'
        for r in readings
        if r.failed
    )
    said = shares or f'{len(absent)} listed files do not exist'
    stopped = any(r.stops(allowed) for r in readings) or bool(absent)
    if any({*r.failed} - r.replaced for r in readings):
        said += '; the run ends at the first'
    elif any(r.replaced for r in readings):
        said += f'; above {100 * allowed:g} % of an epoch training ends, and in testing each counts as wrong'
    return Verdict('readable', WRONG if stopped else NOTE, said, some(lines))
