"""VeRA: random low-rank updates, shared by all layers, of which two vectors are trained."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import at_least_one, check_slots, number, one_of, whole_number
from .delta import Delta, Site
from .update import Term, Update


class VeRAShared(nn.Module):
    """A, (r, d_in), and B, (d_out, r), frozen: drawn Kaiming-uniform from a seed, the same on every machine.

    Args:
        in_dim: of the widest input.
        out_dim: of the widest output.
        rank: r.
        seed: of torch's CPU generator.
        saved: whether files of trained weights hold them too.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, seed: int, saved: bool) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer('A', torch.empty(rank, in_dim), persistent=saved)
        self.register_buffer('B', torch.empty(out_dim, rank), persistent=saved)
        # files without A and B tell by this whether torch still draws the same
        self.register_buffer('checksum', torch.zeros((), dtype=torch.int64), persistent=not saved)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both again, the same ones."""
        generator = torch.Generator('cpu').manual_seed(self.seed)
        for buffer in () if self.A.is_meta else (self.A, self.B):
            drawn = nn.init.kaiming_uniform_(torch.empty(buffer.shape, device='cpu'), generator=generator)
            buffer.copy_(drawn)
            self.checksum.fill_(zlib.crc32(drawn.numpy().tobytes(), int(self.checksum) if buffer is self.B else 0))


class VeRA(Delta):
    """Vector-based random matrix adaptation (Kopiczko et al. 2024) of a linear layer::

        W' = W + diag(b) B diag(d) A        # their Eq. 2

    A and B are frozen, random and shared by all layers; narrower ones use their first columns and rows. d starts at
    ``d_initial`` and b at zero, so that step 0 is the plain backbone. Each slot of a fused qkv has its own.
    Parameters: r + d_out for each layer or slot.

    Args:
        shared: A and B; the backbone owns them.
        site: what it updates.
        slots: on a fused qkv, which of q, k, v are adapted. Defaults to ``'qv'``; ignored elsewhere.
        rank: r, at least 1. Defaults to 256.
        d_initial: where d starts. Defaults to 0.1.
        dropout: on the update's input, in training. Defaults to 0.
        projection_prng_key: the seed of A and B, at least 0. Defaults to 0.
        save_projection: whether files hold A and B as well. Defaults to True; False draws them again, and files hold
            a checksum: one of another torch, which draws otherwise, is refused.

    Raises:
        UserError: for an invalid value.
    """

    places = ('qkv', 'proj', 'fc1', 'fc2')
    reads = 'weights'

    def __init__(
        self,
        shared: VeRAShared,
        site: Site,
        *,
        slots: str = 'qv',
        rank: int = 256,
        d_initial: float = 0.1,
        dropout: float = 0.0,
        projection_prng_key: int = 0,
        save_projection: bool = True,
    ) -> None:
        super().__init__()
        self.share(shared)
        names = check_slots(slots) if site.slots else ['out']
        self.in_dim, self.out_dim = site.in_dim, site.width
        self.starts = {name: max(site.slots.find(name), 0) * site.width for name in names}
        self.d_initial = number('d_initial', d_initial)
        self.dropout = nn.Dropout(number('dropout', dropout, 0, 1))
        self.d = nn.ParameterDict({name: torch.empty(rank) for name in names})
        self.b = nn.ParameterDict({name: torch.empty(site.width) for name in names})
        self.reset_parameters()

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta for each layer, all with the same A and B, as wide as the widest."""
        cls.check_options(options)
        rank, seed = at_least_one('rank', options.get('rank', 256)), options.get('projection_prng_key', 0)
        saved = one_of('save_projection', options.get('save_projection', True), (True, False))
        widest = max(site.in_dim for site in sites), max(site.width for site in sites)
        shared = VeRAShared(*widest, rank, whole_number('projection_prng_key', seed), saved)
        return ((site, cls(shared, site, **options)) for site in sites)

    def reset_parameters(self) -> None:
        """Set every d to ``d_initial`` and every b to zero."""
        for d in self.d.values():
            nn.init.constant_(d, self.d_initial)
        for b in self.b.values():
            nn.init.zeros_(b)

    def update(self, weight: Tensor, bias: Tensor | None) -> Update:
        """Return diag(b) B diag(d) A, one per slot."""
        A, B = self.shared.A[:, : self.in_dim], self.shared.B[: self.out_dim]
        terms = [
            Term(d[:, None] * A, self.b[name][:, None] * B, start=self.starts[name]) for name, d in self.d.items()
        ]
        return Update(terms, dropout=self.dropout)
