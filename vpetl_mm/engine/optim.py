"""Optimizers that hold what is trained and nothing else, and bf16 on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
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
    """Mixed precision in bfloat16, which needs no loss scaling and works on the CPU as well."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of ``model`` under autocast."""
        with super().optim_context(model), torch.autocast(get_device(), dtype=torch.bfloat16):
            yield
