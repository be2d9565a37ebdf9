"""How many FLOPs a whole run takes, of training and of testing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmengine import Config

from ..engine.feature_cache import MANY, views_of
from .cost import Cost
from .count import trains_by_budget
from .samples import samples_of

CROPS = dict(zip(MANY, (3, 10), strict=True))


@dataclass(frozen=True)
class Work:
    """The work of a run on all of its GPUs together.

    Args:
        steps: training steps of one GPU's batch.
        step: FLOPs of one of them.
        passes: forward passes of one sample: validation and testing, and those that fill a cache of features.
        forward: FLOPs of one of them.
    """

    steps: int
    step: int
    passes: int
    forward: int

    @property
    def flops(self) -> int:
        """Return all FLOPs."""
        return self.steps * self.step + self.passes * self.forward


def work_of(
    cfg: Config, cost: Cost, gpus: int = 1, batch: int | None = None, epochs: int | None = None
) -> Work | None:
    """Return the work of an experiment; None where the number of its samples is not known.

    Args:
        cfg: the experiment.
        cost: its model's.
        gpus: that it runs on. Defaults to 1.
        batch: samples a step on one GPU. Defaults to the config's.
        epochs: to train. Defaults to the config's.
    """
    train, tested = samples_of(cfg.train_dataloader.dataset), samples_of(cfg.test_dataloader.dataset, testing=True)
    if train is None or tested is None:
        return None
    batch, epochs = batch or cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs if epochs is None else epochs
    share = (cfg.get('holdout') or {}).get('fraction', 0)
    held = max(1, round(share * train)) if share else 0
    rounded = math.floor if cfg.train_dataloader.get('drop_last') else math.ceil
    steps = epochs * rounded((train - held) / (batch * gpus)) * gpus
    passes = tested * views(cfg.test_dataloader.dataset) + held * (epochs // (cfg.train_cfg.get('val_interval') or 1))
    step, forward = cost.step.at(batch), cost.forward.each
    if epochs and (setting := cfg.get('cache_features')):
        passes += (train - held) * (views_of(setting) or 1)
        step -= cost.forward.at(batch)  # what is left is the head's
    return Work(steps, step, passes, forward)


def views(dataset: Any) -> int:
    """Return how many clips and crops of a sample a pipeline makes."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    steps = dataset['pipeline']
    return math.prod(CROPS.get(s['type'], s.get('num_clips', 1)) for s in steps)


def trains_head_alone(cfg: Config) -> bool:
    """Tell whether an experiment's backbone is frozen and without deltas, so that its features could be cached."""
    petl = cfg.model.get('petl') or {}
    return not petl.get('deltas') and [*petl.get('train', ())] == ['head'] and not trains_by_budget(cfg.model)
