"""Keys and values that deltas add to those of the tokens, inside attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ExtraTokens:
    """What one delta adds.

    Args:
        k: keys of shape (n, d), the same everywhere, or (B, n, d), one set for each window.
        v: values, shaped as ``k``.
        masked: added key j carries the mask of token j (n is then the number of tokens); otherwise every
            token sees every added key. Added keys never carry a position bias.
    """

    k: Tensor
    v: Tensor
    masked: bool


def extra_tokens(attention: nn.Module, x: Tensor, project: Callable[[Tensor], Tensor]) -> list[ExtraTokens]:
    """What the deltas on ``attention`` and on its ``qkv`` add.

    Args:
        attention: the attention module.
        x: what it sees, (B, N, d).
        project: its whole qkv projection, (..., d) to (..., 3 d), deltas and biases included.
    """
    hosts = (attention, attention.qkv)
    deltas = [d for h in hosts for d in getattr(h, 'deltas', {}).values()]
    return [d.extra_tokens(x, project) for d in deltas if d.stream == 'keys']
