"""How fast a config's training pipeline loads clips, against mmaction2's stock transforms."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from ..datasets.petl_video_dataset import PETLVideoDataset
from ..errors import UserError, reason
from ..preparation.progress import progress, warn
from .videos import find_videos, kind_of

OURS, STOCK, SWIN = 'this config', 'stock transforms', "mmaction2's Swin recipe"
IN_STOCK = {'OpenVideo': 'DecordInit', 'DecodeVideo': 'DecordDecode'}
SWIN_CROPS = (
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
)
STAGES = ('open', 'decode', 'crop and resize', 'format')
STAGE_OF = dict.fromkeys(('OpenVideo', 'DecordInit', 'SampleFrames'), 'open')
STAGE_OF |= dict.fromkeys(('DecodeVideo', 'DecordDecode'), 'decode')
STAGE_OF |= dict.fromkeys(('FormatShape', 'PackActionInputs'), 'format')


class Speeds(NamedTuple):
    """What a run measured.

    Args:
        seconds: CPU seconds of each clip, by pipeline: [kind of video, seconds] each.
        stages: milliseconds of a clip by pipeline and stage, medians over the rounds, means over the clips.
    """

    seconds: dict[str, list[tuple[str, float]]]
    stages: dict[str, dict[str, float]]


class Load(NamedTuple):
    """One clip: its CPU seconds, in all and by stage, and whether it is of the video that was asked for."""

    seconds: float
    stages: dict[str, float]
    read: bool


class _Timed:
    """A transform that adds the CPU time it takes to its stage's."""

    def __init__(self, step: Mapping[str, Any], spent: dict[str, float]) -> None:
        self.transform = TRANSFORMS.build(dict(step))
        self.stage, self.spent = STAGE_OF.get(step['type'], 'crop and resize'), spent

    def __call__(self, results: dict) -> dict:
        began = time.process_time()
        results = self.transform(results)
        self.spent[self.stage] += time.process_time() - began
        return results


def pipelines_of(cfg: Config) -> dict[str, list[dict]]:
    """The training pipeline of a config, the same with stock transforms, and mmaction2's Swin recipe.

    Raises:
        UserError: for a config whose training pipeline does not open videos with :class:`OpenVideo`, or has a
            transform that cannot be built.
    """
    ours = [dict(step) for step in cfg.train_dataloader.dataset.get('pipeline') or ()]
    kinds = [step.get('type') for step in ours]
    missing = [kind for kind in (*IN_STOCK, 'FormatShape') if kind not in kinds]
    if missing:
        raise UserError(f'The training pipeline of {cfg.filename} has no {" and no ".join(missing)} to compare.')
    stock = [dict(type=IN_STOCK[kind]) if kind in IN_STOCK else step for kind, step in zip(kinds, ours, strict=True)]
    first, last = kinds.index('DecodeVideo') + 1, kinds.index('FormatShape')
    pipelines = {OURS: ours, STOCK: stock, SWIN: [*stock[:first], *SWIN_CROPS, *stock[last:]]}
    for steps in pipelines.values():
        _check(cfg, steps)
    return pipelines


def _check(cfg: Config, steps: Iterable[Mapping[str, Any]]) -> None:
    """Build a pipeline once here, as an error in a worker's start would only say that the worker is gone."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        for step in steps:
            try:
                TRANSFORMS.build(dict(step))
            except (AssertionError, KeyError, TypeError, ValueError) as error:
                raise UserError(f'The training pipeline of {cfg.filename} is wrong: {reason(error, 300)}') from error


class _Loader:
    """A data set of the videos with one pipeline, that says what each stage takes."""

    def __init__(self, ann_file: str, pipeline: Sequence[Mapping[str, Any]]) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        with DefaultScope.overwrite_default_scope('mmaction'):
            self.data = PETLVideoDataset(ann_file, [_Timed(step, self.spent) for step in pipeline])
        self.data.full_init()
        cv2.setNumThreads(0)
        torch.set_num_threads(1)

    def load(self, index: int, seed: int) -> Load:
        """Load a clip of one video."""
        random.seed(seed)
        np.random.seed(seed)
        self.spent.clear()
        began = time.process_time()
        try:
            sample = self.data[index]
        except UserError:  # neither it nor those taken in its place can be read
            return Load(0.0, {}, read=False)
        took = time.process_time() - began
        return Load(took, dict(self.spent), not sample['data_samples'].metainfo.get('skipped'))


_LOADER: list[_Loader] = []  # the one of a process that measures


def _start(ann_file: str, pipeline: Sequence[Mapping[str, Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _LOADER.append(_Loader(ann_file, pipeline))


def _load(index: int, seed: int) -> Load:
    return _LOADER[0].load(index, seed)


@contextmanager
def _workers(videos: Iterable[Path], pipelines: Mapping[str, list[dict]]) -> Iterator[dict[str, Executor]]:
    """One process for each pipeline, as loaders have: what one does to its memory does not reach the others."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ann_file = Path(folder, 'videos.txt')
        text = ''.join(f'{os.path.abspath(video)} 0\n' for video in videos)
        ann_file.write_text(text, encoding='utf-8', errors='surrogateescape')
        context = multiprocessing.get_context('fork')  # as a fresh process would first import torch and mmaction2
        yield {
            name: stack.enter_context(ProcessPoolExecutor(1, context, _start, (str(ann_file), steps)))
            for name, steps in pipelines.items()
        }


def loading_speed(cfg: Config, source: Path, rounds: int = 5) -> Speeds:
    """Load a random clip of each video in each way, in shuffled rounds, after one round of warming up.

    Each way draws the same random numbers, so that all read the same frames, and has a process of its own; one
    works at a time. What is measured is CPU time, all threads included: a clip's share of one core.

    Args:
        cfg: the experiment.
        source: a folder of videos, or a list.
        rounds: how many clips of each video; the median counts. Defaults to 5.

    Raises:
        UserError: for a config without such a pipeline, or where there is no video that can be read.
    """
    if rounds < 1:
        raise UserError(f'--rounds must be at least 1, got {rounds}.')
    videos, pipelines = find_videos(source), pipelines_of(cfg)
    loads = defaultdict(list)
    jobs = [(name, index) for name in pipelines for index in range(len(videos))]
    with _workers(videos, pipelines) as workers, progress('loading clips', (rounds + 1) * len(jobs)) as advance:
        for turn in range(rounds + 1):
            for name, index in random.Random(turn).sample(jobs, len(jobs)):
                loads[name, index].append(_ask(workers[name], videos, index, turn))
                advance(1)
    return _summary(videos, pipelines, loads)


def _ask(worker: Executor, videos: list[Path], index: int, turn: int) -> Load:
    try:
        return worker.submit(_load, index, turn * len(videos) + index).result()
    except BrokenProcessPool as error:
        raise UserError(f'{videos[index]} is so damaged that reading it ends the process; take it out.') from error


def _summary(videos: list[Path], names: Iterable[str], loads: dict[tuple[str, int], list[Load]]) -> Speeds:
    """The medians of the rounds after the first, of the videos that every pipeline could read."""
    kept = [i for i in range(len(videos)) if all(load.read for name in names for load in loads[name, i])]
    for index in sorted({*range(len(videos))} - {*kept}):
        warn(f'{videos[index]} is left out: it cannot be read in every way that is compared.')
    if not kept:
        raise UserError(f'None of the {len(videos)} videos can be read, {videos[0]} and the others.')
    kinds = {index: kind_of(videos[index]) for index in kept}
    seconds, stages = {}, {}
    for name in names:
        timed = {index: loads[name, index][1:] for index in kept}
        seconds[name] = [(kinds[index], median(load.seconds for load in timed[index])) for index in kept]
        stages[name] = {
            stage: 1000 * mean(median(load.stages.get(stage, 0) for load in timed[index]) for index in kept)
            for stage in STAGES
        }
    return Speeds(seconds, stages)


def _row(what: str, speeds: Speeds, kind: str | None) -> str:
    seconds = {name: [s for k, s in clips if kind in (None, k)] for name, clips in speeds.seconds.items()}
    rate = {name: len(clips) / sum(clips) for name, clips in seconds.items()}
    cells = [str(len(seconds[OURS])), *(f'{rate[name]:.1f}' for name in (OURS, STOCK, SWIN))]
    return f'| {what} | {" | ".join(cells)} | {rate[OURS] / rate[STOCK]:.2f} |'


def render(speeds: Speeds) -> str:
    """Two Markdown tables: clips per second and core by kind of video, and where a clip's time goes."""
    names = (OURS, STOCK, SWIN)
    lines = [f'| clips/s per core | videos | {" | ".join(names)} | ratio to stock |', '| --- |' + ' ---: |' * 5]
    kinds = sorted({kind for kind, _ in speeds.seconds[OURS]})
    lines += [_row(kind, speeds, kind) for kind in kinds]
    lines += [_row('all', speeds, None)] if len(kinds) > 1 else []
    lines += ['', f'| ms a clip | {" | ".join(names)} |', '| --- |' + ' ---: |' * 3]
    for stage in STAGES:
        lines.append(f'| {stage} | {" | ".join(f"{speeds.stages[name][stage]:.1f}" for name in names)} |')
    return '\n'.join(lines)
