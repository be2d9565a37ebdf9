"""Keys and values that deltas add to those of the tokens, inside attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ExtraTokens:
    """Keys and values of one delta.

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
    """Return what the deltas on ``attention`` and on its ``qkv`` add.

    Args:
        attention: the attention module.
        x: its input, (B, N, d).
        project: its full qkv projection, (..., d) to (..., 3 d), deltas and biases included.
    """
    there = [h.deltas for h in (attention, attention.qkv) if hasattr(h, 'deltas')]
    deltas = [d for own in there if not own.silent for d in own.values()]
    return [d.extra_tokens(x, project) for d in deltas if d.joins_attention]


def joined(k: Tensor, v: Tensor, extras: Sequence[ExtraTokens]) -> tuple[Tensor, Tensor]:
    """Return keys and values, (B, N, d) each, with those of ``extras`` in front, (B, n_extra + N, d) each."""
    if not extras:
        return k, v
    added = [[getattr(e, part).expand(k.shape[0], -1, -1) for e in extras] for part in ('k', 'v')]
    return torch.cat([*added[0], k], dim=1), torch.cat([*added[1], v], dim=1)
