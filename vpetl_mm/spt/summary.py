"""What an allocation chose, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .allocation import SPARSE, STRUCTURAL, WHOLE, Allocation, Row
from .units import MATRICES, VECTORS

NAMES = {'LoRA': 'SPT-LoRA', 'AdaptMLP': 'SPT-Adapter'}


def summary(allocation: Allocation) -> str:
    """A table of what is tuned by kind of matrix and vector, and how it was found."""
    made = allocation.made
    lines = [
        f'{NAMES[allocation.structured]} of rank {allocation.rank}: {allocation.params:,} parameters for a budget of '
        f'{allocation.budget:,} (rule {made["rule"]}, alpha {made["alpha"]:g}, beta {made["beta"]:g}), from the '
        f'{made["tau"]:,} most sensitive'
    ]
    if allocation.control:
        lines[0] += f'; a CONTROL: {allocation.control} in the place of sensitivity'
    if made['tau'] == sum(math.prod(r.shape) for r in allocation.rows):
        lines.append('Everything is taken: no larger budget would tune more.')
    score = allocation.control or 'sensitivity'
    lines += [
        '',
        f'{"kind":6}  {"tuned whole":>13}  {"in single entries":>19}  {"parameters":>10}  {score:>11}',
    ]
    total = sum(r.sensitivity for r in allocation.rows) or 1.0
    for kind in (*MATRICES, *VECTORS):
        rows = [r for r in allocation.rows if r.kind == kind]
        lines.append(_line(kind, rows, 100 * sum(r.sensitivity for r in rows) / total))
    if allocation.class_token:
        lines.append(f'{"class token":<42}  {_rest(allocation):>10,}')
    return '\n'.join(lines)


def _line(kind: str, rows: Sequence[Row], share: float) -> str:
    whole = sum(r.choice in (STRUCTURAL, WHOLE) for r in rows)
    entries = sum(r.params for r in rows if r.choice == SPARSE)
    there = sum(r.choice == SPARSE for r in rows)
    single = f'{entries:,} in {there}' if there else '-'
    params = sum(r.params for r in rows)
    return f'{kind:6}  {whole:>6} of {len(rows):>3}  {single:>19}  {params:>10,}  {share:>10.1f}%'


def _rest(allocation: Allocation) -> int:
    return allocation.params - sum(r.params for r in allocation.rows)
