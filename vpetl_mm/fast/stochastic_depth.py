"""Drop-path that does not compute what it drops: less work on a CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def add_branch(x: Tensor, branch: Callable[[Tensor], Tensor], drop_path: nn.Module) -> Tensor:
    """Return x + drop_path(branch(x)), computing the branch of kept samples alone.

    Drop-path drops a sample's whole branch (stochastic depth, Huang et al. 2016); multiplied by zero it would cost as
    much as a kept one. The result is the same, gradients included: parameters of a branch that all samples drop have
    gradients of zero, not None.

    Args:
        x: the residual stream, (B, ...).
        branch: of (b, ...) to (b, ...), each sample by itself.
        drop_path: mmcv's DropPath, or nn.Identity; its random numbers are drawn on the CPU, so that nothing
            waits for a GPU.
    """
    rate = getattr(drop_path, 'drop_prob', 0.0) if drop_path.training else 0.0
    if not rate:
        return x + branch(x)
    kept = drop_path(torch.ones(len(x), 1)).flatten().nonzero().flatten().to(x.device, non_blocking=True)
    alpha = 1 / (1 - rate) if len(kept) else 1.0  # a rate of 1 keeps none
    if len(kept) == len(x):
        return torch.add(x, branch(x), alpha=alpha)
    y = branch(x.index_select(0, kept))
    return x.index_add(0, kept, y.to(x.dtype), alpha=alpha)
