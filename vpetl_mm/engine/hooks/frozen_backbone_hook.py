"""Verifies what trains and what does not."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..adapter import frozen_digests
from ..preflight import check_count


class FrozenBackboneHook(Hook):
    """Reports what trains and its share, and proves that the frozen backbone stayed frozen.

    Freezing itself happens when the model is built: a hook would come after the optimizer. The config's
    ``expect_params``, where it has one, is compared with the trainable parameters before anything is trained.

    Raises:
        UserError: when the count is not ``expect_params``.
        RuntimeError: when a frozen parameter has a gradient, is in the optimizer, or has changed.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._before: dict[str, str] = {}
        self._checked = False

    def before_run(self, runner: Runner) -> None:
        """Compare with ``expect_params``."""
        check_count(runner.cfg, _model(runner))

    def before_train(self, runner: Runner) -> None:
        """Say what trains, and remember the frozen weights."""
        count = _model(runner).plan.count()
        parts = ', '.join(f'{name} {n:,}' for name, n in count['by'].items())
        share = 100 * count['trainable'] / count['total']
        of = f'{count["trainable"]:,} of {count["total"]:,} parameters ({share:.2f}%)'
        runner.logger.info(f'Training {of}: {parts}')
        self._before = frozen_digests(_model(runner))
        held = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
        inside = [n for n, p in _model(runner).named_parameters() if id(p) in held and not p.requires_grad]
        if inside:
            raise RuntimeError(f'frozen parameters are in the optimizer, {inside[0]} among them')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Once, after the first step: no frozen parameter has a gradient."""
        if self._checked:
            return
        self._checked = True
        wrong = [n for n, p in _model(runner).named_parameters() if not p.requires_grad and p.grad is not None]
        if wrong:
            raise RuntimeError(f'frozen parameters have gradients, {wrong[0]} among them')

    def after_train(self, runner: Runner) -> None:
        """The frozen weights are what they were."""
        after = frozen_digests(_model(runner))
        changed = [n for n, digest in self._before.items() if after[n] != digest]
        if changed:
            raise RuntimeError(f'{len(changed)} frozen parameters changed in training, {changed[0]} among them')


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
