"""Parameterised hypercomplex multiplication: linear layers whose weight is a sum of Kronecker products."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PHM(nn.Module):
    """A linear layer whose weight is a sum of n Kronecker products (Zhang et al. 2021; Mahabadi et al. 2021)::

        H = sum over i of A_i (x) B_i,   B_i = s_i t_i      # of the low-rank form
        y = x H + b

    A, (n, n, n), is given with each call: several layers may share it. B_i is (d_in / n, d_out / n), s_i
    (d_in / n, k) and t_i (k, d_out / n). s and t, or B, are drawn Xavier-uniform with a gain of sqrt 2, each i for
    itself, and b is zero.

    Args:
        d_in: the width of x, a multiple of n.
        d_out: the width of y, a multiple of n.
        n: how many products.
        rank: k; None for a B of full rank.
    """

    def __init__(self, d_in: int, d_out: int, n: int, rank: int | None) -> None:
        super().__init__()
        p, q = d_in // n, d_out // n
        self.s = None if rank is None else nn.Parameter(torch.empty(n, p, rank))
        self.t = None if rank is None else nn.Parameter(torch.empty(n, rank, q))
        self.B = nn.Parameter(torch.empty(n, p, q)) if rank is None else None
        self.b = nn.Parameter(torch.empty(d_out))

    def reset_parameters(self) -> None:
        """Draw the factors again and set b to zero."""
        for parameter in (self.s, self.t, self.B):
            for one in () if parameter is None else parameter:
                nn.init.xavier_uniform_(one, gain=2**0.5)
        nn.init.zeros_(self.b)

    def weight(self, A: Tensor) -> Tensor:
        """Return H^T, (d_out, d_in), for A, (n, n, n)."""
        B = self.s @ self.t if self.B is None else self.B
        return torch.einsum('iab,icd->bdac', A, B).flatten(2).flatten(0, 1)
