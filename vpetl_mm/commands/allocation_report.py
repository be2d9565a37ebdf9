"""Describes an allocation: a table of what is tuned, and a figure of sensitivity (SPT, Figure 1a)."""

from __future__ import annotations

import math
from pathlib import Path

from ..engine.preflight import check_writable
from ..errors import UserError
from ..figure import styled
from ..spt.allocation import NONE, SPARSE, STRUCTURAL, WHOLE, Allocation, UnitAllocation
from ..spt.tuning import measured_as
from ..spt.units import MATRICES, VECTORS

METHODS = {'LoRA': 'SPT-LoRA', 'AdaptMLP': 'SPT-Adapter'}


def describe_allocation(allocation: Allocation) -> str:
    """Return a table of what is tuned by kind of matrix and vector, and how it was chosen."""
    made, rows = allocation.made, allocation.rows
    how = ', '.join(f'{name} {value}' for name, value in measured_as(allocation).items())
    control = f'; a CONTROL: {allocation.control} instead of sensitivity' if allocation.control else ''
    lines = [
        f'{METHODS[allocation.structured]} of rank {allocation.rank}: {allocation.params:,} parameters for a budget '
        f'of {allocation.budget:,} (rule {made["rule"]}, alpha {made["alpha"]:g}, beta {made["beta"]:g}), from the '
        f'{made["tau"]:,} most sensitive ({how}){control}'
    ]
    if made['tau'] == sum(math.prod(r.shape) for r in rows):
        lines.append('Everything is tuned: a larger budget would not tune more.')
    score = allocation.control or 'sensitivity'
    lines += ['', f'{"kind":6}  {"tuned whole":>13}  {"in single entries":>19}  {"parameters":>10}  {score:>11}']
    total = sum(r.sensitivity for r in rows) or 1.0
    lines += [_line(kind, _of_kind(allocation, kind), total) for kind in (*MATRICES, *VECTORS)]
    if allocation.class_token:
        lines.append(f'{"class token":<42}  {allocation.params - sum(r.params for r in rows):>10,}')
    return '\n'.join(lines)


def _line(kind: str, rows: list[UnitAllocation], total: float) -> str:
    whole = sum(r.choice in (STRUCTURAL, WHOLE) for r in rows)
    entries = [r.params for r in rows if r.choice == SPARSE]
    single = f'{sum(entries):,} in {len(entries)}' if entries else '-'
    params, share = sum(r.params for r in rows), 100 * sum(r.sensitivity for r in rows) / total
    return f'{kind:6}  {whole:>6} of {len(rows):>3}  {single:>19}  {params:>10,}  {share:>10.1f}%'


def _of_kind(allocation: Allocation, kind: str) -> list[UnitAllocation]:
    return [r for r in allocation.rows if r.kind == kind]


def plot_allocation(allocation: Allocation, file: Path) -> None:
    """Draw each block's share of sensitivity, and the mean per entry by kind of matrix, with dots where it is tuned.

    Raises:
        UserError: for a suffix other than .png, .pdf and .svg, and where no file can be written.
    """
    check_plot(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with styled([file], 2) as (left, right):
        blocks = sorted({r.block for r in allocation.rows if r.block is not None})
        total = sum(r.sensitivity for r in allocation.rows) or 1.0
        shares = [100 * sum(r.sensitivity for r in allocation.rows if r.block == b) / total for b in blocks]
        left.bar(blocks, shares, color='0.6')
        left.set_xlabel('block')
        left.set_ylabel('share of sensitivity (%)')
        for k, kind in enumerate(MATRICES):
            rows = _of_kind(allocation, kind)
            means = [r.sensitivity / math.prod(r.shape) for r in rows]
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
    """Raise :class:`UserError` if a figure cannot be written to ``file``."""
    if file.suffix.lower() not in ('.png', '.pdf', '.svg') or file.is_dir():
        raise UserError(f'--plot must be a file that ends in .png, .pdf or .svg, got {file}.')
    check_writable(f'--plot {file}', file.parent)
