"""Copies of models without values, to count and to try things on: they take neither memory nor time."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Model = TypeVar('Model', bound=nn.Module)


def meta_copy(model: Model) -> Model:
    """Return a copy of a model on the meta device; the values of ``model`` are not copied on the way."""
    memo = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = tensor.detach().to('meta')
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)
