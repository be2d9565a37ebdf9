"""Prefix-tuning: trained keys and values in front of those of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .checks import at_least_one
from .delta import Delta, Site
from .extra_tokens import ExtraTokens
from .inner import Projection


class Prefix(Delta):
    """Prefix-tuning (Li and Liang 2021; V-PETL, Eq. 5), hosted on an attention module::

        P_k | P_v = up(tanh(down(P)))
        head_i = Attention(Z W_q, concat(P_k, Z W_k), concat(P_v, Z W_v))       # Eq. 5

    P is a trained table, drawn from a standard normal distribution; both linear layers keep nn.Linear's init.
    Every token of every window sees every prefix token, without a position bias. No initial value leaves
    the plain backbone unchanged: even a key of zeros takes its share of the softmax.

    Parameters: n d + 3 d r + r + 2 d for n tokens and a middle of width r. Without a middle P_k and P_v are trained
    tables themselves, drawn with a standard deviation of 0.02, as in He et al. 2022 (prefix_nomlp): 2 n d.

    Args:
        dim: the width d of the keys.
        num_tokens: the number n of tokens. Defaults to 16.
        d_middle: the width r between the linear layers. Defaults to 128; None for none of them.

    Raises:
        UserError: for a value below 1.
    """

    places = ('attn',)
    reads = None
    joins_attention = True
    starts_plain = False

    def __init__(self, dim: int, *, num_tokens: int = 16, d_middle: int | None = 128) -> None:
        super().__init__()
        tables = (2,) if d_middle is None else ()
        self.tokens = nn.Parameter(torch.empty(*tables, at_least_one('num_tokens', num_tokens), dim))
        self.down = None if d_middle is None else nn.Linear(dim, at_least_one('d_middle', d_middle))
        self.act = nn.Tanh()
        self.up = None if d_middle is None else nn.Linear(d_middle, 2 * dim)
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options: Any) -> Prefix:
        """Build the prefix of an attention, as wide as its keys."""
        cls.check_options(options)
        opened = site.inner is not None
        return cls(Projection(site.host, site.inner).out_features // 3 if opened else site.out_dim, **options)

    def reset_parameters(self) -> None:
        """Draw the table, or both, and both layers again."""
        nn.init.normal_(self.tokens, std=0.02 if self.down is None else 1.0)
        for layer in (self.down, self.up):
            if layer is not None:
                layer.reset_parameters()

    def extra_tokens(self, x: Tensor, project: Callable[[Tensor], Tensor]) -> ExtraTokens:
        """Return P_k and P_v, (n, d) each; neither ``x`` nor the host's projection is needed."""
        if self.down is None:
            return ExtraTokens(*self.tokens, masked=False)
        k, v = self.up(self.act(self.down(self.tokens))).chunk(2, dim=-1)
        return ExtraTokens(k, v, masked=False)
