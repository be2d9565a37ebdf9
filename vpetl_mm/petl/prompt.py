"""Prompt: visual prompt tuning, shallow and deep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checks import at_least_one, one_of
from .delta import Delta, Site
from .extra_tokens import ExtraTokens


class Prompt(Delta):
    """Visual prompt tuning (Jia et al. 2022; V-PETL, Eq. 8): trained tokens P next to the patches.

    Deep: every block has its own tokens and drops its outputs for them. They act only through their keys and values,
    so only those are computed, and windows can have them too::

        [x', _] = Block([x, P])   <=>   keys and values of [x, P], queries of x

    Shallow: one set of tokens is appended at the first block, passes through all blocks, and is removed after the
    last. ``deep`` decides the position: ``'attn'`` or ``'block'``.

    Drawn uniformly within +-sqrt(3 / d), VPT's bound for a ViT-B/16. Parameters: n d in each block
    (deep) or once (shallow).

    Args:
        dim: the width d of the tokens.
        norm: the norm in front of the attention, which the tokens also pass; referenced, not owned. Defaults to
            None, no norm.
        inserts: whether it owns tokens; only the last block of a shallow prompt does not.
        strips: remove the tokens after the host (the last block of a shallow prompt does).
        num_tokens: the number n of tokens.
        deep: see above. Defaults to True.

    Raises:
        UserError: for an invalid value.
    """

    places = ('attn', 'block')
    reads = None
    starts_plain = False

    def __init__(
        self,
        dim: int,
        norm: nn.Module | None = None,
        inserts: bool = True,
        strips: bool = True,
        *,
        num_tokens: int,
        deep: bool = True,
    ) -> None:
        super().__init__()
        self.num_tokens = at_least_one('num_tokens', num_tokens)
        self.joins_attention, self.adds_tokens = deep, not deep
        self.__dict__['norm'] = norm  # not a child: its weights are the backbone's
        self.inserts, self.strips = inserts, strips
        if inserts:
            self.tokens = nn.Parameter(torch.empty(num_tokens, dim))
        self.reset_parameters()

    @classmethod
    def place_of(cls, options: dict[str, Any]) -> str:
        """Return ``'attn'`` for deep prompts, ``'block'`` for shallow ones."""
        return 'attn' if one_of('deep', options.get('deep', True), (True, False)) else 'block'

    @classmethod
    def at_sites(cls, sites: Sequence[Site], **options: Any) -> Iterator[tuple[Site, Delta]]:
        """Build one delta per block for deep prompts, one at the first and the last block for shallow ones."""
        cls.check_options(options)
        place = cls.place_of(options)
        if sites[0].place != place:
            raise UserError(f'Prompt with deep={place == "attn"} sits at {place!r}, not at {sites[0].place!r}.')
        if place == 'attn':
            yield from ((site, cls(site.in_dim, site.norm, **options)) for site in sites)
            return
        ends = {site.name: site for site in (sites[0], sites[-1])}
        for site in ends.values():
            yield site, cls(site.in_dim, None, site is sites[0], site is sites[-1], **options)

    def reset_parameters(self) -> None:
        """Draw the tokens again."""
        if self.inserts:
            bound = math.sqrt(3 / self.tokens.shape[1])
            nn.init.uniform_(self.tokens, -bound, bound)

    def extra_tokens(self, x: Tensor, project: Callable[[Tensor], Tensor]) -> ExtraTokens:
        """Return keys and values of the normalised tokens, (n, d) each, from the host's own projection."""
        tokens = self.tokens if self.norm is None else self.norm(self.tokens)
        _, k, v = project(tokens).chunk(3, dim=-1)
        return ExtraTokens(k, v, masked=False)

    def before(self, x: Tensor) -> Tensor:
        """Append the tokens at the first block of a shallow prompt, (B, N, d) to (B, N + n, d)."""
        if self.joins_attention or not self.inserts:
            return x
        return torch.cat([x, self.tokens.expand(x.shape[0], -1, -1)], dim=1)

    def after(self, y: Tensor) -> Tensor:
        """Remove the tokens after the last block of a shallow prompt, (B, N + n, d) to (B, N, d)."""
        return y if self.joins_attention or not self.strips else y[:, : -self.num_tokens]
