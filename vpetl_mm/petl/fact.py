"""FacT: the updates of all weights of a backbone as one tensor, decomposed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, number, one_of
from .delta import Delta, Site
from .update import Term, Update


class FacTShared(nn.Module):
    """The factors U and V, (d, r) each, and for Tucker's form the core C and the mixing P of all slices.

    Args:
        dim: the width d.
        rank: r.
        slices: how many slices there are. Defaults to 0: the tensor-train form, which has neither C nor P.
    """

    def __init__(self, dim: int, rank: int, slices: int = 0) -> None:
        super().__init__()
        self.U = nn.Linear(dim, rank, bias=False)
        self.V = nn.Linear(rank, dim, bias=False)
        self.C = nn.Parameter(torch.empty(rank, rank, rank)) if slices else None
        self.P = nn.Parameter(torch.empty(rank, slices)) if slices else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw U, and C and P, again, and set V to zero."""
        self.U.reset_parameters()
        nn.init.zeros_(self.V.weight)
        for part in (self.C, self.P):
            if part is not None:
                nn.init.xavier_uniform_(part)


class FacTWidths(nn.ModuleDict):
    """The factors of a backbone whose width changes: those of each width, under its number."""

    def reset_parameters(self) -> None:
        """Draw all of them again."""
        for factors in self.values():
            factors.reset_parameters()


class FacT(Delta):
    """Factor-tuning (Jie and Deng 2023) of the q, k, v, output and MLP weights of all blocks.

    A block's weights are 12 slices of (d, d): q, k, v, the output projection, and four each of the MLP's layers, or
    as many as the MLP is times as wide. The updates of all slices are one tensor, of which U and V are shared by the
    whole backbone::

        tensor-train:  dW_i = s U S_i V^T                              # their Eq. 4
        Tucker:        dW_i = s U (sum over t of P_{t, i} C_t) V^T     # their Eq. 6

    V starts at zero, so that step 0 is the plain backbone. U and every S are drawn as nn.Linear's, C and P
    Xavier-uniform. Parameters for L blocks: 2 d r + 12 L r^2 (tensor-train), 2 d r + 12 L r + r^3 (Tucker). Where the
    width changes from stage to stage, as in Swin, the blocks of each width have factors of their own.

    Args:
        shared: U, V, C and P, of one width or of all; the backbone owns them.
        site: what it updates.
        first: the number of its first slice among those of its width.
        form: ``'TT'`` (default), tensor-train, or ``'TK'``, Tucker.
        rank: r, at least 1. Defaults to 16.
        scale: the strength s. Defaults to 1.
        dropout: behind S or C, in training. Defaults to 0.1.
        published: with ``form='TK'``, treat the four slices of an MLP's layer as the released code does: the columns
            of their cores are interleaved, so that each slice is made of parts of all four, and the cores of its
            second layer are transposed. Defaults to False, the paper's: Eq. 6 for every slice.

    Raises:
        UserError: for an invalid value, and for a weight that is not made of square slices.
    """

    places = ('qkv', 'proj', 'fc1', 'fc2')
    default_at = places
    reads = 'weights'

    def __init__(
        self,
        shared: FacTShared | FacTWidths,
        site: Site,
        first: int,
        *,
        form: str = 'TT',
        rank: int = 16,
        scale: float = 1.0,
        dropout: float = 0.1,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.share(shared)
        self.place, self.width = site.place, _width(site)
        self.columns = slice(first, first + _slices(site))
        self.scale, self.dropout = number('scale', scale), nn.Dropout(number('dropout', dropout, 0, 1))
        tucker = one_of('FacT form', form, ('TT', 'TK')) == 'TK'
        self.published = one_of('FacT published', published, (True, False) if tucker else (False,))
        self.S = None if tucker else nn.Parameter(torch.empty(_slices(site), rank, rank))
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta for each layer, all of a width with the same factors.

        Raises:
            UserError: also where the weights are no slices of one size.
        """
        cls.check_options(options)
        rank, firsts, counts = at_least_one('rank', options.get('rank', 16)), [], Counter()
        for i in sorted(range(len(sites)), key=lambda i: sites[i].depth):  # a block's slices follow each other
            firsts.append((i, counts[_width(sites[i])]))
            counts[_width(sites[i])] += _slices(sites[i])
        if rank > min(counts):
            raise UserError(f'FacT rank={rank} is above the width {min(counts)} of the weights.')
        tucker = options.get('form') == 'TK'
        factors = {str(d): FacTShared(d, rank, slices * tucker) for d, slices in counts.items()}
        shared = FacTWidths(factors) if len(factors) > 1 else next(iter(factors.values()))
        return ((sites[i], cls(shared, sites[i], first, **options)) for i, first in sorted(firsts))

    @property
    def factors(self) -> FacTShared:
        """U, V, C and P of its width."""
        return self.shared[str(self.width)] if isinstance(self.shared, FacTWidths) else self.shared

    def reset_parameters(self) -> None:
        """Draw the slices again; what is shared draws itself."""
        if self.S is not None:
            inputs = self.S.shape[1] * (len(self.S) if self.place == 'fc2' else 1)
            nn.init.uniform_(self.S, -(inputs**-0.5), inputs**-0.5)

    def cores(self) -> Tensor:
        """Return what is between U and V^T, of each slice, (slices, r, r)."""
        if self.S is not None:
            return self.S
        cores = self.factors.C @ self.factors.P[:, self.columns]  # (r, r, slices)
        if self.published and self.place in ('fc1', 'fc2'):
            cores = cores.flatten(1).unflatten(1, (cores.shape[2], -1)).transpose(1, 2)
            cores = cores.transpose(0, 1) if self.place == 'fc2' else cores
        return cores.permute(2, 0, 1)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return s U core V^T of each slice; the weight holds it transposed."""
        U, V = self.factors.U.weight, self.factors.V.weight  # (r, d) and (d, r)
        As = [core.t() @ U for core in self.cores()]
        if self.place == 'fc2':  # its slices lie along the input
            return Update([Term(torch.cat(As, dim=1), V, scale=self.scale, dropout=self.dropout)])
        terms = [Term(A, V, None, self.scale, i * self.width, self.dropout) for i, A in enumerate(As)]
        return Update(terms)


def _width(site: Site) -> int:
    """Return the side d of the square slices of a site's weight."""
    return site.out_dim if site.place == 'fc2' else site.in_dim


def _slices(site: Site) -> int:
    """Return how many slices a site's weight has; raise :class:`UserError` where they are not square."""
    d, size = _width(site), site.in_dim * site.out_dim
    if size % (d * d):
        raise UserError(f'FacT: {site.name}, {site.out_dim} x {site.in_dim}, is not made of slices of {d} x {d}.')
    return size // (d * d)
