"""Optimizers that hold what is trained and nothing else, and bf16 where the hardware has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from ..errors import UserError


class PETLOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor over the parameters that require gradients.

    Where SPT tunes, vectors (1-D parameters, single weights among them) have no weight decay, unless
    ``paramwise_cfg.flat_decay_mult`` says otherwise.

    Raises:
        UserError: when nothing is trained.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper for ``model``."""
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not trained:
            raise UserError('Nothing is trained: petl has no deltas and an empty train list.')
        if getattr(model, 'spt', None) is not None:  # SPT's recipe: whole vectors and single weights do not decay
            self.paramwise_cfg = dict(flat_decay_mult=0.0) | (self.paramwise_cfg or {})
        return super().__call__(_Parameters(trained))


class _Parameters(nn.Module):
    """Shows the default constructor a model of exactly these parameters."""

    def __init__(self, named: list[tuple[str, nn.Parameter]]) -> None:
        super().__init__()
        self._named = dict(named)

    def named_parameters(self, *args, **kwargs):
        return self._named.items()

    def parameters(self, recurse: bool = True):
        return iter(self._named.values())


class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16, which needs no loss scaling; float32 on a CPU without bfloat16 instructions.

    There, a step in bfloat16 takes up to 20 times as long as one in float32.

    Args:
        any_cpu: take bfloat16 on such a CPU as well (``--amp``). Defaults to False.
    """

    def __init__(self, *args: Any, any_cpu: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slow = get_device() == 'cpu' and not has_bfloat16()
        self.enabled = any_cpu or not self.slow
        self._said = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of ``model`` under autocast."""
        if not self._said:
            self._said = True
            self._say()
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16, self.enabled):
            yield

    def _say(self) -> None:
        logger = MMLogger.get_current_instance()
        if not self.slow:
            logger.info('Precision: bfloat16 autocast')
        elif self.enabled:
            logger.warning('Precision: bfloat16 autocast, as --amp asks; it is slow, as this CPU only emulates it')
        else:
            logger.info('Precision: float32, as this CPU only emulates bfloat16; --amp takes it all the same')


def has_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 itself: AVX512-BF16 or AMX on x86, BF16 on ARM."""
    there = getattr(torch.cpu, 'get_capabilities', dict)()  # not yet in torch 2.6
    return any(there.get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16', 'sve_bf16'))
