"""Compacter: adapters of hypercomplex layers, with factors that all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .addition import Addition
from .checks import ACTIVATIONS, at_least_one, one_of
from .delta import Delta, Site
from .phm import PHM


class CompacterShared(nn.Module):
    """The slow weights A_1 to A_n, (n, n, n).

    Args:
        n: how many.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(n, n, n))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw them again, from a normal distribution with a standard deviation of 1e-4."""
        nn.init.normal_(self.A, std=1e-4)


class Compacter(Delta):
    """Compacter (Mahabadi et al. 2021), behind attention and behind the MLP, in front of the residual::

        y <- y + up(act(down(y)))
        down(x) = x H + b,  H = sum over i of A_i (x) B_i,  B_i = s_i t_i;  up likewise

    (x) is the Kronecker product. A is one for the whole backbone, whatever the widths; the rest belongs to one layer.
    ``at='mlp'`` alone is Compacter++; ``rank=None`` is the paper's PHM-Adapter, whose B_i have full rank.

    A is drawn from a normal distribution with a standard deviation of 1e-4, s and t Xavier-uniform with a gain of
    sqrt 2, and biases are zero: step 0 is very nearly the plain backbone, not exactly. Parameters of one adapter:
    2 k (d + r) + r + d; n^3 in all.

    Args:
        shared: A; the backbone owns it.
        site: behind which layer it is.
        n: the number of products; divides d and r. Defaults to 4.
        rank: k, at least 1, or None. Defaults to 1.
        d_bottle: the bottleneck's width r. Defaults to None, d / 32, rounded up to a multiple of n.
        act: ``'GELUTanh'`` (default), ``'GELU'``, ``'QuickGELU'`` or ``'ReLU'``.

    Raises:
        UserError: for an invalid value.
    """

    places = ('proj', 'mlp')
    default_at = places
    reads = 'output'
    starts_plain = False

    def __init__(
        self,
        shared: CompacterShared,
        site: Site,
        *,
        n: int = 4,
        rank: int | None = 1,
        d_bottle: int | None = None,
        act: str = 'GELUTanh',
    ) -> None:
        super().__init__()
        width = -(-site.out_dim // (32 * n)) * n if d_bottle is None else at_least_one('d_bottle', d_bottle)
        if site.out_dim % n or width % n:
            raise UserError(
                f'Compacter n={n} must divide the width {site.out_dim} of {site.name} and d_bottle, here {width}; '
                'give another d_bottle or n.'
            )
        rank = rank if rank is None else at_least_one('rank', rank)
        self.share(shared)
        self.down, self.up = PHM(site.out_dim, width, n, rank), PHM(width, site.out_dim, n, rank)
        self.act = ACTIVATIONS[one_of('Compacter act', act, tuple(ACTIVATIONS))]()
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta for each site, all with the same slow weights."""
        cls.check_options(options)
        shared = CompacterShared(at_least_one('n', options.get('n', 4)))
        return ((site, cls(shared, site, **options)) for site in sites)

    def reset_parameters(self) -> None:
        """Draw both layers again; what is shared draws itself."""
        self.down.reset_parameters()
        self.up.reset_parameters()

    def forward(self, y: Tensor) -> Addition:
        """Return what is added to the layer's output.

        Args:
            y: that output, (..., d).
        """
        A = self.shared.A
        h = self.act(F.linear(y, self.down.weight(A), self.down.b))
        return Addition(h, self.up.weight(A), self.up.b)
