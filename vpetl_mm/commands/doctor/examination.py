"""Looks at an experiment before hours are spent on it: its lists, its files, and a few steps on one real batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine import Config

from ...datasets.image_reader import UnreadableImage
from ...datasets.list_file import leaving_out
from ...engine.entries import innermost
from ...engine.experiment import Options, prepare
from ...engine.loaders import WrongLabel
from ...engine.preflight import check_experiment
from ...engine.rehearsal import rehearsed
from ...petl.checks import at_least_one, number
from .lists import check_labels, open_splits
from .overlap import check_overlap, contents_of
from .reading import Reading, check_reading, read_samples
from .start import check_plain_start, check_start, logits_of
from .steps import check_cost, check_frozen, check_gradients, check_rate
from .trial import batch_of, tried
from .verdict import NOTE, WRONG, Verdict

LOADERS = ('train_dataloader', 'val_dataloader')  # what a run uses


@dataclass(frozen=True)
class Examination:
    """The options of tools/doctor.py.

    Args:
        config: the experiment's file.
        cfg_options: dotted keys to override in the config.
        samples: how many of each list are read. Defaults to 64.
        steps: optimizer steps on one batch. Defaults to 3.
        hashed: how many files are read at most to compare their content. Defaults to 20,000.
        gpus: how many the run will have. Defaults to 1.
    """

    config: str
    cfg_options: dict[str, Any] | None = None
    samples: int = 64
    steps: int = 3
    hashed: int = 20_000
    gpus: int = 1


def examine(request: Examination) -> Iterator[Verdict]:
    """Check an experiment, and yield each verdict as it is found. Nothing is written, and no weights stay changed.

    Raises:
        UserError: for an experiment that cannot run at all.
    """
    for option in ('samples', 'steps', 'gpus'):
        at_least_one(f'--{option}', getattr(request, option))
    number('--hash', request.hashed, 0)
    cfg = prepare(request.config, Options(cfg_options=request.cfg_options))
    with leaving_out() as left_out:
        spoilt = _refusal(cfg)
        splits, absent = open_splits(cfg)
        head = next(cfg.model[name] for name in ('cls_head', 'head') if name in cfg.model)
        yield check_labels(splits, head.num_classes, left_out)
        contents = contents_of(splits)
        yield check_overlap(contents, request.hashed, absent)
        counts = {'train': max(request.samples, cfg.train_dataloader.batch_size)}
        readings = [read_samples(split, counts.get(split.name, request.samples)) for split in splits]
        yield check_reading(cfg, readings, [place for content in contents for place in content.missing])
        if spoilt:
            cfg = _repaired(cfg, readings)
            if why := _refusal(cfg):
                yield Verdict('steps', NOTE, f'not tried, as training would end at once: {why}')
                return
        yield from _on_a_batch(cfg, request, readings[0])


def _refusal(cfg: Config) -> str:
    """Return why a run would refuse the data; '' where it would not. Raises UserError for everything else."""
    try:
        check_experiment(cfg, LOADERS)
    except (UnreadableImage, WrongLabel) as error:
        return str(error).rstrip('.')
    return ''


def _repaired(cfg: Config, readings: Sequence[Reading]) -> Config:
    """Return the experiment without the samples that cannot be read."""
    cfg = copy.deepcopy(cfg)
    for reading in readings:
        if lost := {*reading.failed} - reading.replaced:
            kept = [index for index in range(len(reading.split.labels)) if index not in lost]
            innermost(cfg[f'{reading.split.name}_dataloader'].dataset)['indices'] = kept
    return cfg


def _on_a_batch(cfg: Config, request: Examination, reading: Reading) -> Iterator[Verdict]:
    """Take a few steps on a batch of samples that can be read."""
    size = cfg.train_dataloader.batch_size
    if not reading.good:
        yield Verdict('steps', NOTE, 'not tried, as none of the samples that were read could be')
        return
    with rehearsed(cfg, request.gpus) as runner:
        batch = batch_of(runner, reading.split.dataset, reading.good[:size])
        try:
            plain, logits = check_plain_start(runner, batch), logits_of(runner, batch)
            trial = tried(cfg, runner, batch, request.steps)
        except torch.OutOfMemoryError:
            yield Verdict('cost', WRONG, f'a batch of {size} does not fit into the memory of this GPU')
            return
        yield from filter(None, [plain])
        yield check_start(logits, trial.losses[0])
        yield check_gradients(runner.plain_model, trial)
        yield check_frozen(trial)
        yield check_rate(cfg, runner, trial, request.gpus)
        yield check_cost(cfg, runner, trial, reading, request.gpus)
