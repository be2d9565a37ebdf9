"""Verify that what should train does, and that the rest stays frozen."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ...errors import UserError
from ..adapter import frozen_digests

# optimizer steps after which every trained weight has moved: the first do not change LoRA's A, as B is zero, and
# those of a warm-up may be too small for float32
ENOUGH = 50


class FrozenBackboneHook(Hook):
    """Reports what trains and its share, and proves that it trains and that the frozen backbone stays frozen.

    Freezing itself happens when the model is built: a hook would come after the optimizer. Trained tensors without a
    gradient in the first optimizer step end the run, unless ``find_unused_parameters`` in the config says that a step
    may skip some. Those that have not moved after the first epochs, at a learning rate above zero, are warned about:
    their gradient may have been zero.

    Raises:
        UserError: when trained tensors get no gradient.
        RuntimeError: when a frozen parameter has a gradient, is in the optimizer, or has changed.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Report what trains, and remember the frozen weights."""
        count = runner.plain_model.plan.count()
        parts = ', '.join(f'{name} {n:,}' for name, n in count['by'].items())
        share = 100 * count['trainable'] / count['total']
        of = f'{count["trainable"]:,} of {count["total"]:,} parameters ({share:.2f}%)'
        runner.logger.info(f'Training {of}: {parts}')
        self._before = frozen_digests(runner.plain_model)
        held = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
        inside = [n for n, p in runner.plain_model.named_parameters() if id(p) in held and not p.requires_grad]
        if inside:
            raise RuntimeError(f'frozen parameters are in the optimizer, {inside[0]} among them')
        self._trained = {n: p for n, p in runner.plain_model.named_parameters() if p.requires_grad}
        self._at_start, self._steps = {n: _fingerprint(p) for n, p in self._trained.items()}, 0
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self._before_step(runner))

    def _before_step(self, runner: Runner) -> None:
        self._steps += 1
        if self._steps > 1:
            return
        wrong = [n for n, p in runner.plain_model.named_parameters() if not p.requires_grad and p.grad is not None]
        if wrong:
            raise RuntimeError(f'frozen parameters have gradients, {wrong[0]} among them')
        without = [n for n, p in self._trained.items() if p.grad is None]
        if without and not runner.cfg.get('find_unused_parameters', False):
            raise UserError(
                f'{len(without)} of {len(self._trained)} trained tensors get no gradient, {without[0]} among them: '
                'the loss does not depend on them. If a step may skip some, set find_unused_parameters=True.'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        """Check once, after enough steps, that what trains has moved."""
        if not self._at_start or self._steps < ENOUGH:
            return
        groups = runner.optim_wrapper.optimizer.param_groups
        still = {id(p) for g in groups if not g.get('initial_lr', g['lr']) for p in g['params']}
        same = [n for n, p in self._trained.items() if id(p) not in still and _fingerprint(p) == self._at_start[n]]
        self._at_start = {}
        if same:
            runner.logger.warning(
                f'{len(same)} of {len(self._trained)} trained tensors have not changed in {self._steps} steps, '
                f'{same[0]} among them: their gradients are zero, or too small for the learning rate.'
            )

    def after_train(self, runner: Runner) -> None:
        """Check that the frozen weights have not changed."""
        after = frozen_digests(runner.plain_model)
        changed = [n for n, digest in self._before.items() if after[n] != digest]
        if changed:
            raise RuntimeError(f'{len(changed)} frozen parameters changed in training, {changed[0]} among them')


def _fingerprint(tensor: Tensor) -> int:
    return hash(tensor.detach().cpu().numpy().tobytes())
