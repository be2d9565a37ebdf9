"""MHPA: the multi-head parallel adapter of "Towards a Unified View", inside an attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .addition import Addition
from .checks import at_least_one, one_of
from .delta import Delta, Site
from .inner import Projection


class MHPA(Delta):
    """Multi-head parallel adapter (He et al. 2022) beside the heads of an attention, for its input x::

        head_i <- head_i + ReLU(q_i K_i^T) V_i
        q = W_q LN(x) + b_q

    W_q and b_q are the attention's own, LN is a new norm, and K_i and V_i are the columns of two tables, (l, d), that
    belong to head i. The queries are not divided by sqrt(d / heads), and neither a norm that the attention may have
    for its queries comes in, nor any other delta on qkv or the output projection. As that, W_o, is linear, W_o times
    the sum is added to the attention's output.

    With ``multi_head=False`` it is their parallel adapter with one head, whose first table is trained in place of
    W_q K^T, and which has biases::

        heads <- heads + up(ReLU(down(LN(x))))

    The tables are drawn from a normal distribution with a standard deviation of 0.02, and biases are zero: step 0 is
    not the plain backbone. Parameters: 2 l d + 2 d_in; of the other form 2 d_in + (d_in + 1) l + (l + 1) d.

    Args:
        dim: the width d_in of x.
        num_heads: of the attention.
        projection: of the attention, to q, k and v; referenced, not owned.
        behind: what follows the heads inside the host and is linear: the output projection, and maybe LayerScale;
            likewise. Nothing where the host is the inside of an attention.
        num_tokens: l, at least 1. Defaults to 30.
        multi_head: see above. Defaults to True.

    Raises:
        UserError: for an invalid value, and where the attention does not say how many heads it has.
    """

    places = ('attn',)
    starts_plain = False

    def __init__(
        self,
        dim: int,
        num_heads: int,
        projection: Projection,
        behind: tuple[nn.Module, ...] = (),
        *,
        num_tokens: int = 30,
        multi_head: bool = True,
    ) -> None:
        super().__init__()
        width = projection.out_features // 3
        self.num_heads = num_heads
        self.__dict__.update(projection=projection, behind=behind)  # no children: their weights are the backbone's
        self.norm, rows = nn.LayerNorm(dim), at_least_one('num_tokens', num_tokens)
        both = one_of('MHPA multi_head', multi_head, (True, False))
        self.K, self.V = (nn.Parameter(torch.empty(rows, width)) if both else None for _ in range(2))
        self.down = None if both else nn.Linear(dim, rows)
        self.up = None if both else nn.Linear(rows, width)
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Delta:
        """Build the adapter of one attention.

        Raises:
            UserError: also where its queries are not the rows of one weight.
        """
        cls.check_options(options)
        if site.projection is None:
            raise UserError(f'MHPA needs the weights of q; {type(site.host).__name__} has none where they should be.')
        return cls(site.in_dim, site.num_heads, site.projection, site.behind_heads, **options)

    def reset_parameters(self) -> None:
        """Draw the tables again, and start the norm again."""
        self.norm.reset_parameters()
        for table in (self.K, self.V) if self.down is None else (self.down.weight, self.up.weight):
            nn.init.normal_(table, std=0.02)
        for layer in () if self.down is None else (self.down, self.up):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Addition | Tensor:
        """Return what is added to the attention's output.

        Args:
            x: its input, (..., d_in).
        """
        x = self.norm(x)
        D = self._heads(x) if self.down is None else self.up(self.down(x).relu())
        if not self.behind:
            return D
        proj, *others = self.behind
        weight = proj.weight
        for layer in others:
            weight = weight * layer.weight[:, None]
        return Addition(D, weight)

    def _heads(self, x: Tensor) -> Tensor:
        """Return ReLU(q_i K_i^T) V_i of all heads, side by side, (..., d)."""
        weight, bias, d = self.projection.weights[0], self.projection.biases[0], self.K.shape[1]
        q = F.linear(x, weight[:d], bias if bias is None else bias[:d])
        q, K, V = (t.unflatten(-1, (self.num_heads, -1)) for t in (q, self.K, self.V))
        return torch.einsum('...hl,lhc->...hc', torch.einsum('...hc,lhc->...hl', q, K).relu(), V).flatten(-2)
