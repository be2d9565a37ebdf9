"""Random numbers that differ between epochs and are the same in a resumed run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


class EpochSeedHook(Hook):
    """Seeds python, numpy and torch from (seed, epoch, rank) before each epoch.

    mmengine seeds the loader's workers alike in every epoch, which repeats the crops, and does not restore the random
    state on resuming. The workers follow torch's seed, so this covers them too, if mmengine's own seeding is replaced
    by ``worker_init_fn=dict(type='seed_worker')``.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the coming epoch."""
        words = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank]).generate_state(2)
        random.seed(int(words[0]))
        np.random.seed(int(words[0]))
        torch.manual_seed((int(words[0]) << 32) + int(words[1]))


def seed_worker(worker_id: int, **_: Any) -> None:
    """Seed python and numpy in a loader's worker from its torch seed."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
