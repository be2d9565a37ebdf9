"""KAdaptation: updates of q and v as sums of Kronecker products, with factors that all blocks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, check_slots, number
from .delta import Delta, Site
from .update import Term, Update


class KAdaptationShared(nn.Module):
    """The slow weights A_i = a_i b_i^T of each slot: a and b, (n, n) each, row i for A_i.

    Args:
        n: how many products there are, and the width of their first factors.
        slots: the letters of the slots.
    """

    def __init__(self, n: int, slots: str) -> None:
        super().__init__()
        self.a = nn.ParameterDict({name: torch.empty(n, n) for name in slots})
        self.b = nn.ParameterDict({name: torch.empty(n, n) for name in slots})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw them again, Xavier-uniform."""
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter)


class KAdaptation(Delta):
    """KAdaptation (He et al. 2023) of the q and v weights::

        W' = W + s H^T
        H = sum over i of A_i (x) B_i,  A_i = a_i b_i^T,  B_i = u_i v_i^T       # their Eq. 6 and 7
        b' = b + c

    (x) is the Kronecker product. a and b are shared by all blocks; u and v belong to a slot of one block, and c to
    all slots of one. v starts at zero, and so does c, so that step 0 is the plain backbone; a, b and u are drawn
    Xavier-uniform. The released code zeroes both u and v, after which none of the four can learn, uses q's factors
    for v, and scrambles the order of the tokens.

    Parameters of m slots: 2 m d + d for each block, 2 m n^2 in all.

    Args:
        shared: a and b; the backbone owns them.
        site: what it updates.
        slots: which of q, k, v are adapted. Defaults to ``'qv'``.
        n: the number of products; divides d. Defaults to 32.
        scale: the strength s. Defaults to 1.

    Raises:
        UserError: for an invalid value.
    """

    places = ('qkv',)
    reads = 'weights'

    def __init__(
        self, shared: KAdaptationShared, site: Site, *, slots: str = 'qv', n: int = 32, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.share(shared)
        self.starts = {name: site.slots.index(name) * site.width for name in slots}
        self.scale, self.rows = number('scale', scale), site.out_dim
        self.u = nn.ParameterDict({name: torch.empty(n, site.in_dim // n) for name in slots})
        self.v = nn.ParameterDict({name: torch.empty(n, site.width // n) for name in slots})
        self.c = nn.Parameter(torch.empty(site.width))
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta for each block, all with the same slow weights."""
        cls.check_options(options)
        n = at_least_one('n', options.get('n', 32))
        for site in sites:
            if site.in_dim % n or site.width % n:
                raise UserError(
                    f'KAdaptation n={n} must divide the widths {site.in_dim} and {site.width} of {site.name}.'
                )
        shared = KAdaptationShared(n, check_slots(options.get('slots', 'qv')))
        return ((site, cls(shared, site, **options)) for site in sites)

    def reset_parameters(self) -> None:
        """Draw u again, and set v and c to zero."""
        for name, u in self.u.items():
            nn.init.xavier_uniform_(u)
            nn.init.zeros_(self.v[name])
        nn.init.zeros_(self.c)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return s H^T of each slot; every product of two outer products is one of two vectors."""
        terms, shift = [], weight.new_zeros(self.rows)
        for name, start in self.starts.items():
            A = _kron(self.shared.a[name], self.u[name])  # (n, d_in): a_i (x) u_i
            B = _kron(self.shared.b[name], self.v[name]).t()  # (d_out, n): b_i (x) v_i
            terms.append(Term(A, B, None, self.scale, start))
            shift = torch.cat([shift[:start], self.c, shift[start + len(self.c) :]])
        return Update(terms, shift=shift)


def _kron(x: Tensor, y: Tensor) -> Tensor:
    """Return the Kronecker product of row i of both, for each i: (n, p) and (n, q) to (n, p q)."""
    return (x[:, :, None] * y[:, None, :]).flatten(1)
