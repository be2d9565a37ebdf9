"""LoRA: low-rank updates of a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .delta import LinearDelta, at_least_one, check_slots, number
from .update import add_up


class LoRA(LinearDelta):
    """Low-rank adaptation (Hu et al. 2022; V-PETL, Sec. 3) of a linear layer: y + (alpha / rank) B A x.

    On a fused qkv each slot has an A and a B of its own. A is drawn Kaiming-uniform (a = sqrt 5), B starts
    at zero, so that step 0 is the plain backbone. No biases. Parameters: n_slots * rank * (d_in + d_out).

    Args:
        in_dim: the layer's input width.
        out_dim: the width of one slot of its output.
        slots: on a fused qkv, which of q, k, v are adapted. Defaults to ``'qv'``; ignored elsewhere.
        rank: at least 1. Defaults to 16.
        alpha: the update is scaled by alpha / rank. Defaults to None, which is ``rank`` (a scale of 1).
        dropout: on the update's input, in training. Defaults to 0.
        host_slots: the parts of the layer's output, ``'qkv'`` or ``''``; set by the site.

    Raises:
        UserError: for a value outside these.
    """

    has_inplace = True

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
    ) -> None:
        super().__init__()
        at_least_one('rank', rank)
        self.host_slots = host_slots
        names = check_slots(slots) if host_slots else ['out']
        self.scale = 1.0 if alpha is None else number('alpha', alpha) / rank
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.A = nn.ModuleDict({n: nn.Linear(in_dim, rank, bias=False) for n in names})
        self.B = nn.ModuleDict({n: nn.Linear(rank, out_dim, bias=False) for n in names})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every A anew and set every B to zero."""
        for a in self.A.values():
            nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        for b in self.B.values():
            nn.init.zeros_(b.weight)

    def forward(self, x: Tensor, y: Tensor, inplace: bool = False) -> Tensor:
        """Add the low-rank updates.

        Args:
            x: the layer's input, (..., d_in).
            y: the layer's output, (..., d_out) or (..., 3 d_out).
            inplace: ``y`` may be overwritten. Defaults to False.

        Returns:
            A tensor of the shape of ``y``.
        """
        x, y = self.dropout(x), y if inplace else y.clone()
        for name, a in self.A.items():
            start = self.host_slots.index(name) * len(self.B[name].weight) if self.host_slots else 0
            y = add_up(y, a(x), self.B[name].weight, None, self.scale, start)
        return y

    @torch.no_grad()
    def merge(self, host: nn.Module, biases: Sequence[tuple[nn.Parameter, int]]) -> None:
        """Add the low-rank products to the layer's weight for good.

        Args:
            host: the layer.
            biases: of the layer, which has no part in it.
        """
        for name, a in self.A.items():
            rows = host.weight
            if self.host_slots:
                rows = rows.chunk(len(self.host_slots))[self.host_slots.index(name)]
            rows += (self.B[name].weight @ a.weight) * self.scale
