"""Randomness that differs from epoch to epoch and is the same for a resumed run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


class EpochSeedHook(Hook):
    """Seeds python, numpy and torch from (seed, epoch, rank) before each epoch.

    mmengine gives each start of the loader's workers the same seed, so that every epoch repeats its crops,
    and does not restore the random state on resuming. The workers follow torch's seed, so this settles them
    too; ``worker_init_fn=dict(type='seed_worker')`` keeps mmengine's own seeding away.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed for the epoch to come."""
        words = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank]).generate_state(2)
        random.seed(int(words[0]))
        np.random.seed(int(words[0]))
        torch.manual_seed((int(words[0]) << 32) + int(words[1]))


def seed_worker(worker_id: int, **_: Any) -> None:
    """Seed python and numpy of a loader's worker from the seed that torch gave it."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
