"""Tests for transforms and hooks, which see more of a model than its output."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook  # what nn.Module itself asks; no public name


def is_transformed() -> bool:
    """Tell whether torch.compile, tracing, torch.func or forward-mode differentiation is active.

    They support neither our autograd functions nor what a module keeps: fast classes then take the plain path.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # torch.func has no public name for this
        or forward_ad._current_level >= 0  # nor has forward mode
    )


def is_watched(module: nn.Module) -> bool:
    """Tell whether a hook sees the input, output or gradient of ``module``, or its forward was exchanged."""
    # a module has no public list of its hooks
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or _has_any_global_hook() or 'forward' in vars(module)
