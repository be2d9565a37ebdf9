"""Train a head on features that are computed once."""

from __future__ import annotations

import time

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ...datasets.feature_dataset import FeatureDataset
from ...models.features import FeaturePreprocessor
from ..feature_cache import cached_dataset, is_fixed


class FeatureCacheHook(Hook):
    """Replaces the training data by cached features, and the validation data too if its pipeline is fixed.

    ``cache_features`` in a config adds it. The features stay in memory; a resumed run computes them again.

    Args:
        views: passes through the training pipeline to keep. Epoch e sees view e mod ``views``.
    """

    priority = 'LOWEST'  # after everything that may change the model before training

    def __init__(self, views: int) -> None:
        self.views = views

    def before_train(self, runner: Runner) -> None:
        """Compute the features, and exchange loaders and preprocessor."""
        started = time.monotonic()
        loop, model = runner.train_loop, runner.plain_model
        train = cached_dataset(runner, loop.dataloader, self.views, lambda: runner.optim_wrapper.optim_context(model))
        loop.dataloader = self._loader(runner, 'train_dataloader', train)
        said = f'{self.views} view(s) of {len(train):,} training samples'
        if runner.cfg.get('val_dataloader') and is_fixed(runner.cfg.val_dataloader.dataset):
            validation = cached_dataset(runner, runner.val_loop.dataloader, 1)
            runner.val_loop.dataloader = self._loader(runner, 'val_dataloader', validation)
            said += f' and {len(validation):,} validation samples'
        model.data_preprocessor = FeaturePreprocessor(model.data_preprocessor).to(next(model.parameters()).device)
        size = sum(f.numel() * f.element_size() for f, _ in train.views) / 2**20
        runner.logger.info(f'Features of {said}: {size:,.1f} MiB, computed in {time.monotonic() - started:.0f} s')

    def before_train_epoch(self, runner: Runner) -> None:
        """Select the view of the epoch."""
        runner.train_loop.dataloader.dataset.view = runner.epoch % self.views

    def after_train(self, runner: Runner) -> None:
        """Restore the model's own preprocessor."""
        runner.plain_model.data_preprocessor = runner.plain_model.data_preprocessor.own

    def _loader(self, runner: Runner, key: str, dataset: FeatureDataset) -> DataLoader:
        cfg = runner.cfg[key].copy()
        cfg.update(dataset=dataset, num_workers=0, persistent_workers=False)
        cfg.pop('prefetch_factor', None)
        return Runner.build_dataloader(cfg, seed=runner.seed)
