"""Drop-path of a delta's branch, whole rows of the batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import number
from .delta import Delta, Site


class DropBranch(nn.Module):
    """In training, leaves out a branch for some rows of the batch, and divides it by 1 - p for the others.

    Args:
        p: how likely a row is left out.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output, (B, ..., d), with rows left out."""
        if not self.training or not self.p:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * kept / (1 - self.p)


def at_rates(cls: type[Delta], sites: Sequence[Site], options: Mapping[str, Any]) -> Iterator[tuple[Site, Delta]]:
    """Build one delta per site; its option ``drop_path`` grows evenly from 0 to what is given, block by block."""
    cls.check_options(options)
    last = number('drop_path', options.get('drop_path', 0.0), 0, 1)
    blocks = sorted({site.depth for site in sites})
    for site in sites:
        rate = dict(drop_path=last * blocks.index(site.depth) / max(len(blocks) - 1, 1)) if last else {}
        yield site, cls.at_site(site, **{**options, **rate})
