"""The demo's table, one row per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import stdev

from ..errors import UserError, is_line
from ..files import from_json
from .table_format import Table


@dataclass
class DemoRow:
    """One method's result: top-1 in percent and the seconds to train and test, both means over the seeds.

    ``few_top1`` is what the method comes to with a part of the target's clips; None where that was not tried.
    """

    method: str
    params: int
    share: float
    top1: float
    seconds: float
    top1_per_seed: list[float] = field(default_factory=list)
    few_top1: float | None = None
    few_top1_per_seed: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        """Return the standard deviation of top-1 over the seeds."""
        return _spread(self.top1_per_seed)

    @property
    def few_spread(self) -> float:
        """Return the standard deviation of ``few_top1`` over the seeds."""
        return _spread(self.few_top1_per_seed)


def _spread(scores: Sequence[float]) -> float:
    return stdev(scores) if len(scores) > 1 else 0.0


def demo_table(rows: Sequence[DemoRow], *notes: str) -> Table:
    """Return the table, with the spread of top-1 if any method has several seeds."""
    several = any(len(r.top1_per_seed) > 1 for r in rows)
    with_few = any(r.few_top1 is not None for r in rows)

    def cell(top1: float | None, spread: float) -> str:
        if top1 is None:
            return ''
        return f'{top1:.1f} ± {spread:.1f}' if several else f'{top1:.1f}'

    cells = []
    for r in rows:
        top1 = [cell(r.top1, r.spread), *([cell(r.few_top1, r.few_spread)] if with_few else [])]
        cells.append([r.method, f'{r.params:,}', f'{100 * r.share:.1f}%', *top1, f'{r.seconds:.0f}', ''])
    columns = ['method', 'trainable', 'share', 'top-1', *(['few clips'] if with_few else []), 'seconds', 'remark']
    return Table('The demo', columns, cells, 1, list(notes))


def read_demo_table(work_dirs: Path = Path('work_dirs')) -> Table:
    """Read the table that the demo left in ``work_dirs/demo/table.json``.

    Raises:
        UserError: when the demo was not run, or the file is corrupt.
    """
    file = Path(work_dirs, 'demo', 'table.json')
    if not file.is_file():
        raise UserError(f'The demo has no results: {file} does not exist; run "make demo" first.')
    try:
        rows = [DemoRow(**row) for row in from_json(file.read_text(encoding='utf-8'))]
        if not rows or not all(0 <= top1 <= 100 for row in rows for top1 in _scores(row)):
            raise ValueError('it has no rows, or an accuracy outside 0 to 100')
        if not all(is_line(row.method) for row in rows):
            raise ValueError('a method is not a line of text')
        return demo_table(rows)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f'The result {file} is corrupt ({error}); run "make demo" again.') from error


def _scores(row: DemoRow) -> list[float]:
    few = [] if row.few_top1 is None else [row.few_top1]
    return [row.top1, *row.top1_per_seed, *few, *row.few_top1_per_seed]
