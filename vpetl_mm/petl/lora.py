"""LoRA: low-rank updates of a linear layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .checks import at_least_one, check_slots, number
from .delta import LinearDelta
from .update import Term, Update


class LoRA(LinearDelta):
    """Low-rank adaptation (Hu et al. 2022; V-PETL, Sec. 3) of a linear layer::

        W' = W + (alpha / rank) B A

    On a fused qkv each slot has its own A and B. A is drawn Kaiming-uniform (a = sqrt 5), B starts at zero,
    so that step 0 is the plain backbone. There are no biases. Parameters: n_slots * rank * (d_in + d_out).

    Args:
        in_dim: the layer's input width.
        out_dim: the width of one slot of its output.
        host_slots: the parts of the layer's output, ``'qkv'`` or ``''``; the site sets it.
        slots: on a fused qkv, which of q, k, v are adapted. Defaults to ``'qv'``; ignored elsewhere.
        rank: at least 1. Defaults to 16.
        alpha: scales the update by alpha / rank. Defaults to None, which is ``rank`` (a scale of 1).
        dropout: on the update's input, in training. Defaults to 0.
        inner_dropout: between A and B, in training. Defaults to 0.

    Raises:
        UserError: for an invalid value.
    """

    reads = 'weights'

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        host_slots: str = '',
        *,
        slots: str = 'qv',
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least_one('rank', rank)
        names = check_slots(slots) if host_slots else ['out']
        self.starts = {name: max(host_slots.find(name), 0) * out_dim for name in names}
        self.scale = 1.0 if alpha is None else number('alpha', alpha) / rank
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.inner_dropout = nn.Dropout(number('inner_dropout', inner_dropout, 0, 1))
        self.A = nn.ModuleDict({n: nn.Linear(in_dim, rank, bias=False) for n in names})
        self.B = nn.ModuleDict({n: nn.Linear(rank, out_dim, bias=False) for n in names})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every A again and set every B to zero."""
        for a in self.A.values():
            nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        for b in self.B.values():
            nn.init.zeros_(b.weight)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return the updates (alpha / rank) B A, one per slot."""
        terms = [
            Term(a.weight, self.B[n].weight, scale=self.scale, start=self.starts[n], dropout=self.inner_dropout)
            for n, a in self.A.items()
        ]
        return Update(terms, dropout=self.dropout)
