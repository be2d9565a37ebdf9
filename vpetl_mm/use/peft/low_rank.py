"""Low-rank updates of one linear layer: several as one, and one on a fused qkv by its slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """An update ``scale`` B A of a linear layer, or of neighbouring rows of its weight.

    Args:
        a: A, (rank, d_in).
        b: B, (rows, rank).
        scale: alpha / rank.
        start: the first of the rows. Defaults to 0.
    """

    a: Tensor
    b: Tensor
    scale: float
    start: int = 0

    @property
    def rank(self) -> int:
        """The number of A's rows."""
        return len(self.a)

    @property
    def alpha(self) -> float | int:
        """What is divided by the rank to give the scale, a whole number where it is one up to rounding."""
        alpha = self.scale * self.rank
        return round(alpha) if abs(alpha - round(alpha)) < 1e-9 * max(abs(alpha), 1) else alpha


def stacked(updates: Sequence[LowRank], d_out: int) -> LowRank:
    """Return the sum of updates of one layer as one update of their summed rank.

    The A lie on top of each other, the B side by side in their own rows. Where scales differ, the first that is not
    zero is the scale of all, and B makes up for it.

    Args:
        updates: at least one.
        d_out: the rows of the layer's weight.
    """
    scale = shared_scale(updates)
    b = updates[0].b.new_zeros(d_out, sum(u.rank for u in updates))
    column = 0
    for update in updates:
        part = b[update.start : update.start + len(update.b), column : column + update.rank]
        part.copy_(rescaled(update, scale))
        column += update.rank
    return LowRank(torch.cat([u.a for u in updates]), b, scale)


def shared_scale(updates: Sequence[LowRank]) -> float:
    """Return the first scale that is not zero, or else zero."""
    return next((u.scale for u in updates if u.scale), 0.0)


def rescaled(update: LowRank, scale: float) -> Tensor:
    """Return the B that gives the same update with another scale."""
    return update.b if update.scale == scale else update.b * (update.scale / scale)


def by_slot(update: LowRank, slots: str = 'qkv') -> dict[str, LowRank]:
    """Return an update of a fused layer as one update for each slot that it changes.

    Where every column of B changes one slot alone, a slot gets its own columns, and its own rows of A. Otherwise,
    and where B is zero, every slot gets its rows of B, and the whole A.

    Args:
        update: of the whole layer.
        slots: the letters of the equal parts of its rows.
    """
    blocks = update.b.chunk(len(slots))
    used = torch.stack([block.ne(0).any(0) for block in blocks])
    if not used.any() or used.sum(0).max() > 1:
        return {s: LowRank(update.a, block, update.scale) for s, block in zip(slots, blocks, strict=True)}
    owners = used.int().argmax(0)
    owner = owners[used.any(0)][0]
    for column in range(update.rank):  # a column of zeros goes with the one before it
        owner = owners[column] = owners[column] if used[:, column].any() else owner
    found = {}
    for number, slot in enumerate(slots):
        own = owners == number
        if own.any():
            found[slot] = LowRank(update.a[own], blocks[number][:, own], update.scale)
    return found


def padded(update: LowRank, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return A and B of the same update with a higher rank and another scale; what is added is zero, and stays so.

    In training, too: the gradient of a row of A is B's column times something, and that of the column A's row.
    """
    a, b = update.a.new_zeros(rank, update.a.shape[1]), update.b.new_zeros(len(update.b), rank)
    a[: update.rank], b[:, : update.rank] = update.a, rescaled(update, scale)
    return a, b
