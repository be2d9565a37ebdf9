"""Sensitivity per block and per kind of matrix, drawn (SPT, Figure 1a)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..paper.tradeoff import styled
from ..spt.allocation import NONE, Allocation, Row
from ..spt.units import MATRICES


def plot(allocation: Allocation, file: Path) -> None:
    """Draw the share of sensitivity in each block, and the mean per entry by kind of matrix, tuned ones filled.

    Args:
        allocation: what was measured and chosen.
        file: ends in .png, .pdf or .svg.

    Raises:
        UserError: for another ending, and a place that takes no files.
    """
    check_plot(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with styled([file], 2) as (left, right):
        blocks = sorted({r.block for r in allocation.rows if r.block is not None})
        total = sum(r.sensitivity for r in allocation.rows) or 1.0
        left.bar(
            blocks, [100 * sum(r.sensitivity for r in _of(allocation, block=b)) / total for b in blocks], color='0.6'
        )
        left.set_xlabel('block')
        left.set_ylabel('share of sensitivity (%)')
        for k, kind in enumerate(MATRICES):
            rows = _of(allocation, kind=kind)
            means = [r.sensitivity / (r.shape[0] * r.shape[1]) for r in rows]
            right.plot([r.block for r in rows], means, color=f'C{k}', linewidth=1.1, label=kind)
            tuned = [(r.block, m) for r, m in zip(rows, means, strict=True) if r.choice != NONE]
            if tuned:
                right.plot(*zip(*tuned, strict=True), 'o', color=f'C{k}', markersize=4)
        for axes in (left, right):
            axes.set_xticks(blocks[:: max(1, len(blocks) // 12)])
        right.set_xlabel('block (dots: tuned, whole or in part)')
        right.set_ylabel('mean sensitivity of an entry')
        if any(r.sensitivity > 0 for r in allocation.rows if r.kind in MATRICES):
            right.set_yscale('log')
        right.legend(frameon=False, fontsize=7, ncols=2)


def check_plot(file: Path) -> None:
    """Raise :class:`UserError` for a file that no figure can be drawn to."""
    if file.suffix.lower() not in ('.png', '.pdf', '.svg') or file.is_dir():
        raise UserError(f'--plot must be a file that ends in .png, .pdf or .svg, got {file}.')
    there = next(p for p in file.absolute().parents if p.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f'--plot {file} cannot be written: {error.strerror}.') from error


def _of(allocation: Allocation, **wanted: object) -> Sequence[Row]:
    return [r for r in allocation.rows if all(getattr(r, k) == v for k, v in wanted.items())]
