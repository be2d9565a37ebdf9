"""SSF: scale and shift behind every operation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import one_of
from .delta import Delta, Site
from .update import Update


class SSF(Delta):
    """Scaling and shifting features (Lian et al. 2022) of a linear layer, a norm or the patch embedding::

        y <- gamma * y + beta        # their Eq. 3
        W' = diag(gamma) W
        b' = gamma * b + beta        # their Eq. 4

    By default behind every operation of the backbone. On fused q, k and v each output has its own gamma and beta.
    Parameters: 2 d_out for each.

    Args:
        out_dim: the width d_out of the host's output.
        init: ``'normal'`` (default), as published: gamma from N(1, 0.02^2) and beta from N(0, 0.02^2), so that step 0
            is not quite the plain backbone; ``'identity'``: ones and zeros, so that it is.

    Raises:
        UserError: for an invalid value.
    """

    places = ('patch_embed', 'norm1', 'qkv', 'proj', 'norm2', 'fc1', 'fc2', 'last_norm')
    default_at = places
    reads = 'weights'

    def __init__(self, out_dim: int, *, init: str = 'normal') -> None:
        super().__init__()
        self.starts_plain = one_of('SSF init', init, ('normal', 'identity')) == 'identity'
        self.gamma = nn.Parameter(torch.empty(out_dim))
        self.beta = nn.Parameter(torch.empty(out_dim))
        self.reset_parameters()

    @classmethod
    def at_site(cls, site: Site, **options) -> SSF:
        """Build the scale and shift of a host's whole output."""
        cls.check_options(options)
        return cls(site.out_dim, **options)

    def reset_parameters(self) -> None:
        """Draw gamma and beta again; see ``init``."""
        std = 0.0 if self.starts_plain else 0.02
        nn.init.normal_(self.gamma, 1.0, std)
        nn.init.normal_(self.beta, 0.0, std)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return the gains gamma and the shifts beta."""
        return Update(gain=self.gamma, shift=self.beta)
