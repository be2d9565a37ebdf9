"""Whether more than plain autograd looks at operations."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_transformed() -> bool:
    """Whether torch.compile, tracing, torch.func or forward-mode derivatives are at work.

    None of them knows an autograd function of ours, an operation without autograd, or what a module keeps: whoever
    has such a fast path takes the plain one then.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
