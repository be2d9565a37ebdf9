"""The paper's tables with our results beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev

from vpetl_cli.shipped import experiments

from ..config import load_config
from ..engine.record import Record, find_records, is_as_printed
from ..errors import UserError, is_line
from ..files import from_json
from ..measure.count import trainable
from .demo_rows import DemoRow, demo_cells
from .metafile import Entry, Ours
from .table_format import Table
from .table_layouts import Layout, Line, layout
from .transfer import EXPERIMENTS as TRANSFER
from .transfer import transfer_table
from .vtab import EXPERIMENTS as VTAB
from .vtab import needed, vtab_table

NOT_RUN = 'not run'


def counts_as_printed(record: Record, configs: Path = Path('configs')) -> bool:
    """Whether a record is its config's experiment: :func:`is_as_printed`, of the last epoch, of its count.

    SPT's count is the record's own.
    """
    file = experiments(configs).get(record.config)  # never a path from a record
    if not is_as_printed(record) or file is None:
        return is_as_printed(record)
    finished = record.epoch == load_config(file).train_cfg.max_epochs
    return finished and trainable([record.config], configs).get(record.config, record.params) == record.params


def as_printed(records: Iterable[Record], configs: Path = Path('configs')) -> tuple[dict[str, list[Record]], int]:
    """The records that count, by experiment, the newest of each seed; and how many were left out.

    Left out is what :func:`counts_as_printed` refuses.
    """
    newest: dict[tuple[str, int | None], Record] = {}
    out = 0
    for record in sorted(records, key=lambda r: datetime.fromisoformat(r.finished).timestamp()):
        if counts_as_printed(record, configs):
            newest[record.config, record.seed] = record
        else:
            out += 1
    runs: dict[str, list[Record]] = {}
    for (config, _), record in sorted(newest.items(), key=lambda item: str(item[0])):
        runs.setdefault(config, []).append(record)
    return runs, out


def summary(runs: Sequence[Record]) -> Ours:
    """Mean and spread of one experiment's runs, accuracies to a hundredth."""
    scores = [r.top1 for r in runs]
    figures = [round(mean(getattr(r, k) for r in runs), 2) for k in ('top1', 'top5', 'mean_class')]
    params = round(mean(r.params for r in runs))  # SPT's differ by the seed
    return Ours(*figures, params, len(runs), round(stdev(scores), 2) if len(scores) > 1 else 0.0)


class Tables:
    """What every table is made of.

    Args:
        entries: the metafile's.
        work_dirs: where the runs' records lie, which are preferred to what the metafile holds; None: the metafile's
            alone.
        configs: the folder of the configs.
        progress: show a progress bar while parameters are counted, on a terminal.
        counts: trainable parameters by experiment, where they are known; None: they are counted.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        work_dirs: Path | None = Path('work_dirs'),
        configs: Path = Path('configs'),
        progress: bool = False,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.entries, self.counts, self.configs = list(entries), counts, configs
        self._count = lambda names: trainable(names, configs, progress)
        self._by_cell = {(cell, e.dataset): e for e in self.entries for cell in e.cells}
        runs, self.left_out = as_printed(find_records(work_dirs).values() if work_dirs else (), configs)
        self.ours = {e.name: e.ours for e in self.entries if e.ours} | {n: summary(r) for n, r in runs.items()}

    def entry(self, cell: str, dataset: str) -> Entry:
        """The experiment that answers a cell; a :class:`UserError` when the metafile has none."""
        if (cell, dataset) not in self._by_cell:
            raise UserError(f'No entry of the metafile answers {cell} on {dataset}.')
        return self._by_cell[cell, dataset]

    def names(self, table: str) -> list[str]:
        """The experiments that a table shows, in its order; ``'transfer'`` and ``'vtab'`` are none of V-PETL's."""
        if table in ('transfer', 'vtab'):
            return list(TRANSFER if table == 'transfer' else VTAB)
        shape = layout(table)
        names = (e.name for line in shape.lines for e in self._line(shape, line))
        return list(dict.fromkeys(names))

    def table(self, name: str) -> Table:
        """The table called ``name``, such as ``'table3'``, ``'transfer'`` or ``'vtab'``."""
        counts = self.counted(needed(self.ours) if name == 'vtab' else self.names(name))
        ours = self.still(counts)
        if name == 'transfer':
            return transfer_table(ours, counts, self.configs)
        if name == 'vtab':
            table = vtab_table(ours, counts)
            table.notes += self._about_runs(name, ours)
            return table
        shape = layout(name)
        row = _MeanRow if shape.params == 'mean5' else _Row
        rows = [row(shape, line, self._line(shape, line), counts, ours) for line in shape.lines]
        table = Table(shape.title, row.head(shape), [r.cells() for r in rows], len(shape.labels))
        table.notes.append(
            'Top-1 in percent; trainable parameters in millions as printed (M), beside our exact count.'
        )
        if shape.params == 'mean5':
            table.notes.append('The parameters are the mean over the five tasks.')
        table.notes += self._about_runs(name, ours)
        return table

    def counted(self, names: Iterable[str]) -> Mapping[str, int]:
        """The trainable parameters of experiments, but for SPT's."""
        return self._count(names) if self.counts is None else self.counts

    def still(self, counts: Mapping[str, int]) -> dict[str, Ours]:
        """The results but for those of other ``counts``: a model that has been edited since is another one."""
        return {n: o for n, o in self.ours.items() if n not in counts or o.params == counts[n]}

    def _about_runs(self, name: str, ours: Mapping[str, Ours]) -> list[str]:
        """What there is to say of the results that a table shows, and of those that it leaves out."""
        notes = []
        names = {*self.names(name)}
        seeds = sorted({o.seeds for n, o in ours.items() if n in names and o.seeds > 1})
        if seeds:
            what = 'Means over seeds' if name == 'vtab' else '±: standard deviation over seeds'
            notes.append(f'{what} ({", ".join(map(str, seeds))}).')
        left_out = self.left_out + len(self.ours) - len(ours)
        if left_out:
            notes.append(
                f'{left_out} result(s) with other options, parameters or fewer epochs than the config are left out.'
            )
        return notes

    def _line(self, shape: Layout, line: Line) -> list[Entry]:
        return [self.entry(line.cell + c.suffix, c.dataset) for c in shape.columns]


class _Row:
    """A row whose groups of figures have each a count of their own."""

    def __init__(
        self, shape: Layout, line: Line, entries: list[Entry], counts: Mapping[str, int], ours: Mapping[str, Ours]
    ) -> None:
        self.shape, self.line, self.entries, self.counts, self.ours = shape, line, entries, counts, ours

    @classmethod
    def head(cls, shape: Layout) -> list[str]:
        printed = [] if shape.params == 'unprinted' else ['M']
        parts = [*printed, 'count', 'top-1', 'ours']
        return [*shape.labels, *(f'{c.heading}\n{p}' for c in shape.columns for p in parts), 'remark']

    def cells(self) -> list[str]:
        cells = list(self.line.labels)
        for column, entry in zip(self.shape.columns, self.entries, strict=True):
            printed = [] if self.shape.params == 'unprinted' else [f'{entry.paper.params_m:.2f}']
            cells += [*printed, f'{self.counts[entry.name]:,}', *self.top1(entry, self.line.cell + column.suffix)]
        return [*cells, self.remark()]

    def top1(self, entry: Entry, cell: str) -> list[str]:
        """The paper's and ours."""
        ours = self.ours.get(entry.name)
        shown = NOT_RUN if ours is None else f'{ours.top1:.2f}'
        if ours is not None and ours.seeds > 1:
            shown += f' ± {ours.spread:.2f}'
        return [f'{entry.paper.top1_in.get(cell, entry.paper.top1):.2f}', shown]

    def remark(self) -> str:
        cells = [(e, self.line.cell + c.suffix) for e, c in zip(self.entries, self.shape.columns, strict=True)]
        return ' '.join(dict.fromkeys(e.remarks[c] for e, c in cells if c in e.remarks))


class _MeanRow(_Row):
    """A row with one count, the mean over its groups."""

    @classmethod
    def head(cls, shape: Layout) -> list[str]:
        groups = (f'{c.heading}\n{p}' for c in shape.columns for p in ('top-1', 'ours'))
        return [*shape.labels, 'mean\nM', 'mean\ncount', *groups, 'remark']

    def cells(self) -> list[str]:
        average = mean(self.counts[e.name] for e in self.entries)
        cells = [*self.line.labels, f'{self.entries[0].paper.params_m:.2f}', f'{average:,.0f}']
        for entry in self.entries:
            cells += self.top1(entry, self.line.cell)
        return [*cells, self.remark()]


def demo_table(work_dirs: Path = Path('work_dirs')) -> Table:
    """The demo's table, from ``work_dirs/demo/table.json``.

    Raises:
        UserError: when the demo was not run, or the file is corrupt.
    """
    file = Path(work_dirs, 'demo', 'table.json')
    if not file.is_file():
        raise UserError(f'The demo has no results: {file} does not exist; run "make demo" first.')
    try:
        rows = [DemoRow(**row) for row in from_json(file.read_text(encoding='utf-8'))]
        if not rows or not all(0 <= top1 <= 100 for row in rows for top1 in (row.top1, *row.top1_per_seed)):
            raise ValueError('it has no rows, or an accuracy outside 0 to 100')
        if not all(is_line(row.method) for row in rows):
            raise ValueError('a method is no line of text')
        head, *cells = demo_cells(rows)
        return Table('The demo', [*head, 'remark'], [[*c, ''] for c in cells], 1)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f'The result {file} is corrupt ({error}); run "make demo" again.') from error
