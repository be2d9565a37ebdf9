"""RepAdapter: linear bottlenecks in front of attention and MLP, which merge into the layers behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, number
from .delta import Delta
from .update import Term, Update


class RepAdapter(Delta):
    """RepAdapter (Luo et al. 2023), in front of the qkv projection and of the MLP's first layer::

        f(x) = x + s (B (A x + a) + b)       # their Eq. 4; B is block-diagonal, one block for each group
        W f(x) + b_W = W' x + b'
        W' = W (I + s B A)
        b' = b_W + s W (B a + b)             # their Eq. 7

    A is drawn Xavier-uniform, all else starts at zero, so that step 0 is the plain backbone.
    Parameters: d r + r + d r / groups + d for each.

    Args:
        dim: the width d of the layer's input.
        d_bottle: the bottleneck's width r, at least 1. Defaults to 8.
        groups: of B; divides d and r. Defaults to 2.
        scale: the strength s. Defaults to 1.
        dropout: on the bottleneck, in training. Defaults to 0.1.

    Raises:
        UserError: for an invalid value.
    """

    places = ('qkv', 'fc1')
    default_at = places
    reads = 'weights'

    def __init__(
        self, dim: int, *, d_bottle: int = 8, groups: int = 2, scale: float = 1.0, dropout: float = 0.1
    ) -> None:
        super().__init__()
        at_least_one('d_bottle', d_bottle)
        if dim % at_least_one('groups', groups) or d_bottle % groups:
            raise UserError(f'RepAdapter groups={groups} must divide the width {dim} and d_bottle={d_bottle}.')
        self.scale = number('scale', scale)
        self.down = nn.Linear(dim, d_bottle)
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.up = nn.Parameter(torch.empty(groups, dim // groups, d_bottle // groups))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A again and set the rest to zero."""
        nn.init.xavier_uniform_(self.down.weight)
        for parameter in (self.down.bias, self.up, self.bias):
            nn.init.zeros_(parameter)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return s (W B) A and the shift s W b; W sees what the adapter gives."""
        parts = zip(weight.chunk(len(self.up), dim=1), self.up, strict=True)
        WB = torch.cat([W @ B for W, B in parts], dim=1)
        term = Term(self.down.weight, WB, self.down.bias, self.scale, dropout=self.dropout)
        return Update([term], shift=self.scale * (weight @ self.bias))
