"""Format what was measured of every method on one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from .benchmark import SIDE, BenchmarkResult
from .method_benchmark import FULL, Measured

COLUMNS = (
    'method', 'trains', 'training step, s', 'of full tuning', 'saved, MiB', 'of full tuning',
    'inference, s', 'of plain', 'merged, of plain',
)  # fmt: skip


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return the ratio of two times in each round."""
    return [a / b for a, b in zip(ours, other, strict=True)]


def method_table(found: Mapping[str, Measured], result: BenchmarkResult) -> str:
    """Format a Markdown table of all methods, refused ones with the reason, and a line about the machine."""
    full = found[FULL]
    lines = [f'| {" | ".join(COLUMNS)} |', f'| --- |{" ---: |" * (len(COLUMNS) - 1)}']
    lines += [f'| {" | ".join((name, *_cells(one, full)))} |' for name, one in found.items()]
    lines += ['', 'Ratios are those of the same round: the median, and the lowest and the highest.']
    lines += [
        f'A product of {SIDE} x {SIDE} matrices, in the same rounds: {result.matmul[False] / 1e9:,.0f} GFLOP/s.'
    ]
    return '\n'.join(lines)


def _cells(one: Measured, full: Measured) -> list[str]:
    if one.refused:
        return [f'refused: {one.refused}', *[''] * (len(COLUMNS) - 2)]
    return [
        f'{one.trains:,}',
        f'{median(one.step):.3f}',
        _spread(ratios(one.step, full.step)),
        f'{one.saved / 2**20:,.1f}',
        f'{one.saved / full.saved:.2f}',
        f'{median(one.inference):.3f}',
        _spread(ratios(one.inference, full.inference)),
        _spread(ratios(one.merged, full.inference)) if one.merged else '',
    ]


def _spread(values: Sequence[float]) -> str:
    return f'{median(values):.2f} ({min(values):.2f} to {max(values):.2f})'
