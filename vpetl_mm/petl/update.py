"""Updates: what a delta makes of its host's weight and bias. The forward pass and merging both follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .addition import Addition

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Term:
    """A term of low rank, s B A, added to neighbouring rows of a weight, and s B a, added to its bias.

    Args:
        A: (r, d_in).
        B: (n, r).
        a: (r,), where the n rows are all. Defaults to None, zero.
        scale: s, a number or a trained scalar. Defaults to 1.
        start: the first of the n rows. Defaults to 0.
        dropout: on the bottleneck A x + a, in training. Defaults to None.
    """

    A: Tensor
    B: Tensor
    a: Tensor | None = None
    scale: float | Tensor = 1.0
    start: int = 0
    dropout: nn.Module | None = None

    def rows(self, of: Tensor) -> Tensor:
        """Return the part of ``of``, (d_out, ...), that lies in its rows."""
        return of.narrow(0, self.start, len(self.B))


@dataclass(frozen=True)
class Update:
    """The weight and bias of a layer, changed::

        W' = diag(g) (W + sum of s B A)
        b' = g (b + sum of s B a) + c

    Args:
        low_rank: the terms of both sums. Defaults to none.
        gain: g, (d_out,). Defaults to None, ones.
        shift: c, (d_out,). Defaults to None, zeros.
        dropout: on the input of the terms, in training. Defaults to None.
    """

    low_rank: Sequence[Term] = ()
    gain: Tensor | None = None
    shift: Tensor | None = None
    dropout: nn.Module | None = None

    def weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W' and b'; b' is None where nothing makes it one."""
        bias = self.bias(bias)
        if self.low_rank:
            weight = weight.clone()
        for part in self.low_rank:
            part.rows(weight).add_(part.B @ part.A * part.scale)
        if self.gain is not None:
            weight = weight * self.gain.reshape(-1, *[1] * (weight.dim() - 1))
        return weight, bias

    def bias(self, bias: Tensor | None) -> Tensor | None:
        """Return b'; None where nothing makes it one."""
        for part in self.low_rank:
            if part.a is not None:  # of all rows
                own = part.B @ part.a * part.scale
                bias = own if bias is None else bias + own
        if self.gain is not None and bias is not None:
            bias = bias * self.gain
        if self.shift is not None:
            bias = self.shift if bias is None else bias + self.shift
        return bias

    def additions(self, x: Tensor) -> list[Addition]:
        """Return what the terms add to the layer's output for its input x, (..., d_in)."""
        x = x if self.dropout is None else self.dropout(x)
        return [self._addition(part, F.linear(x, part.A, part.a)) for part in self.low_rank]

    def _addition(self, part: Term, h: Tensor) -> Addition:
        h = h if part.dropout is None else part.dropout(h)
        B = part.B if self.gain is None else part.rows(self.gain)[:, None] * part.B
        return Addition(h, B, None, part.scale, part.start)


# what Delta.update returns: how both are changed, or the changed ones themselves
Updated = Update | tuple[Tensor, Tensor | None]


def weights_of(updated: Updated, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the changed weight and bias of what ``update(weight, bias)`` has returned."""
    return updated.weights(weight, bias) if isinstance(updated, Update) else updated


def new_bias(updated: Updated, bias: Tensor | None) -> Tensor | None:
    """Return the changed bias alone."""
    return updated.bias(bias) if isinstance(updated, Update) else updated[1]


def scaled(y: Tensor, updates: Sequence[Update], later: Tensor | None, layer: nn.Module) -> Tensor:
    """Return a layer's output with the gains and shifts of all updates; each sees the layer's own weights.

    Args:
        y: the output of the layer as it is, (..., d_out), or (B, d_out, ...) of a convolution.
        updates: their changes add up.
        later: the part of the bias that y has not yet, (d_out,), added later; None for none.
        layer: whose output it is.
    """
    gains = [u.gain for u in updates if u.gain is not None]
    shifts = [u.shift for u in updates if u.shift is not None]
    gain = gains[0] if len(gains) == 1 else sum((g - 1 for g in gains), torch.ones_like(gains[0])) if gains else None
    if gain is not None and later is not None:
        shifts.append((gain - 1) * later)
    shift = sum(shifts) if shifts else None
    if isinstance(layer, CONVOLUTIONS):
        gain, shift = (t if t is None else t.reshape(-1, *[1] * (y.dim() - 2)) for t in (gain, shift))
    gain, shift = (t if t is None else t.to(y.dtype) for t in (gain, shift))
    if gain is None:
        return y if shift is None else y + shift
    return y * gain if shift is None else torch.addcmul(shift, y, gain)
