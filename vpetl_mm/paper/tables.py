"""The paper's tables with our results beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean

from vpetl_cli.shipped import experiments

from ..campaign.attempt import DONE, read_attempt
from ..config import load_config
from ..engine.record import Record, find_records, is_as_printed
from ..errors import UserError
from ..measure.count import trainable
from .few_shot import EXPERIMENTS as FEW_SHOT
from .few_shot import few_shot_table
from .metafile import Entry, Ours, SeedResult, mean_of
from .table_format import Table
from .table_layouts import TableLayout, TableRow, table_layout
from .transfer import EXPERIMENTS as TRANSFER
from .transfer import top1_of, transfer_table
from .vtab import EXPERIMENTS as VTAB
from .vtab import OTHERS, needed, vtab_table

OWN = dict(transfer=TRANSFER, vtab=VTAB, vtab_further=OTHERS, **FEW_SHOT)  # tables that are not in the paper


def counts_as_printed(record: Record, configs: Path = Path('configs')) -> bool:
    """Return whether a record is of its config's experiment: its options, its last epoch and its parameter count.

    SPT's count is not compared, as its file decides it.
    """
    file = experiments(configs).get(record.config)  # never a path from a record
    if not is_as_printed(record) or file is None:
        return is_as_printed(record)
    finished = record.epoch == load_config(file).train_cfg.max_epochs
    return finished and trainable([record.config], configs).get(record.config, record.params) == record.params


def as_printed(records: Iterable[Record], configs: Path = Path('configs')) -> tuple[dict[str, list[Record]], int]:
    """Return the records that count, by experiment, the newest of each seed; and how many were left out.

    Those that fail :func:`counts_as_printed` are left out.
    """
    ordered = sorted(records, key=lambda r: datetime.fromisoformat(r.finished).timestamp())
    kept = [record for record in ordered if counts_as_printed(record, configs)]
    newest = {(record.config, record.seed): record for record in kept}
    runs: dict[str, list[Record]] = {}
    for (config, _), record in sorted(newest.items(), key=lambda item: str(item[0])):
        runs.setdefault(config, []).append(record)
    return runs, len(ordered) - len(kept)


def by_seed(found: Mapping[Path, Record], records: Sequence[Record]) -> dict[int | None, SeedResult]:
    """Return those ``found`` that are among an experiment's ``records``, as the metafile keeps them."""
    kept = [(path.parent, record) for path, record in found.items() if record in records]
    return {record.seed: result_of(record, hours_of(run)) for run, record in kept}


def result_of(record: Record, hours: float = 0.0) -> SeedResult:
    """Return a record as the metafile keeps it."""
    top1, top5, mean_class = (round(score, 3) for score in (record.top1, record.top5, record.mean_class))
    return SeedResult(top1, max(top1, top5), mean_class, record.params, hours)  # a rounding may part equals


def hours_of(run: Path) -> float:
    """Return the hours of the last attempt at a run; 0 where they are not known."""
    last = read_attempt(run)
    if last is None or last.state != DONE:
        return 0.0
    try:
        spent = datetime.fromisoformat(last.ended) - datetime.fromisoformat(last.started)
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, round(spent.total_seconds() / 3600, 3))


def together(entry: Entry | None, runs: Mapping[int | None, SeedResult]) -> dict[int | None, SeedResult]:
    """Return an experiment's runs by seed: ``runs``, and those of its entry with other seeds.

    A run without a seed cannot be told from those of an entry, and is left out beside them. An entry's run of another
    parameter count is of a model that was edited since, and left out; SPT's counts differ by the seed.
    """
    kept = entry.by_seed if entry else {}
    runs = {seed: run for seed, run in runs.items() if seed is not None or not kept}
    counts = {run.params for run in runs.values()}
    return {s: r for s, r in kept.items() if not runs or r.params in counts or '_spt' in entry.name} | runs


class Tables:
    """A builder of tables from the metafile and the runs.

    Args:
        entries: the metafile's.
        work_dirs: the folder of the runs, whose records take precedence over the metafile's results; None leaves
            runs out.
        configs: the folder of the configs.
        counts: trainable parameters by experiment; None counts them when they are needed.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        work_dirs: Path | None = Path('work_dirs'),
        configs: Path = Path('configs'),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.entries, self.counts, self.configs = list(entries), counts, configs
        self._by_cell = {(cell, e.dataset): e for e in self.entries for cell in e.cells}
        found = find_records(work_dirs) if work_dirs else {}
        runs, self.left_out = as_printed(found.values(), configs)
        by_name = {e.name: e for e in self.entries}
        means = {
            name: mean_of(together(by_name.get(name), by_seed(found, records)).values())
            for name, records in runs.items()
        }
        self.ours = {e.name: e.ours for e in self.entries if e.ours} | means

    def entry(self, cell: str, dataset: str) -> Entry:
        """Return the experiment that answers a cell; raise :class:`UserError` when the metafile has none."""
        if (cell, dataset) not in self._by_cell:
            raise UserError(f'No entry of the metafile answers {cell} on {dataset}.')
        return self._by_cell[cell, dataset]

    def names(self, table: str) -> list[str]:
        """Return the experiments that a table shows, in its order."""
        if table in OWN:
            return list(OWN[table])
        layout = table_layout(table)
        return list(dict.fromkeys(e.name for row in layout.rows for e, _ in self._cells(layout, row)))

    def table(self, name: str) -> Table:
        """Build the table called ``name``, such as ``'table3'``, ``'transfer'`` or ``'vtab_further'``."""
        further = name == 'vtab_further'
        is_vtab = further or name == 'vtab'
        counts = self.counted(needed(self.ours, further) if is_vtab else self.names(name))
        ours = self.still(counts)
        if name == 'transfer':
            return transfer_table(ours, counts, self.configs)
        if name in FEW_SHOT:
            return few_shot_table(name, ours, counts, self.configs)
        table = vtab_table(ours, counts, further) if is_vtab else self._printed(table_layout(name), counts, ours)
        table.notes += self._about_runs(name, ours)
        return table

    def counted(self, names: Iterable[str]) -> Mapping[str, int]:
        """Return the trainable parameters of experiments; SPT's may be missing."""
        return trainable(names, self.configs) if self.counts is None else self.counts

    def still(self, counts: Mapping[str, int]) -> dict[str, Ours]:
        """Return the results whose parameter count is still that of ``counts``: an edited model is another one."""
        return {n: o for n, o in self.ours.items() if n not in counts or o.params == counts[n]}

    def _about_runs(self, name: str, ours: Mapping[str, Ours]) -> list[str]:
        """Return notes on the results that a table shows, and on those that it leaves out."""
        notes = []
        seeds = sorted({ours[n].seeds for n in self.names(name) if n in ours} - {1})
        if seeds:
            what = 'Means over seeds' if name.startswith('vtab') else '±: standard deviation over seeds'
            notes.append(f'{what} ({", ".join(map(str, seeds))}).')
        left_out = self.left_out + len(self.ours) - len(ours)
        if left_out:
            notes.append(
                f'{left_out} result(s) with other options, parameters or fewer epochs than the config are left out.'
            )
        return notes

    def _cells(self, layout: TableLayout, row: TableRow) -> list[tuple[Entry, str]]:
        """Return the experiment and the cell of each group of a row."""
        cells = [(row.cell + column.suffix, column.dataset) for column in layout.columns]
        return [(self.entry(cell, dataset), cell) for cell, dataset in cells]

    def _printed(self, layout: TableLayout, counts: Mapping[str, int], ours: Mapping[str, Ours]) -> Table:
        """Build one of the paper's tables."""
        mean5, own = layout.params == 'mean5', layout.params == 'own'
        parts = [*['M'] * own, *['count'] * (not mean5), 'top-1', 'ours']
        heads = [f'{column.heading}\n{part}' for column in layout.columns for part in parts]
        rows = []
        for row in layout.rows:
            cells, remarks = list(row.labels), {}
            entries = self._cells(layout, row)
            if mean5:
                average = mean(counts[entry.name] for entry, _ in entries)
                cells += [f'{entries[0][0].paper.params_m:.2f}', f'{average:,.0f}']
            for entry, cell in entries:
                cells += [f'{entry.paper.params_m:.2f}'] * own + [f'{counts[entry.name]:,}'] * (not mean5)
                cells += [f'{entry.paper.top1_in.get(cell, entry.paper.top1):.2f}', top1_of(ours.get(entry.name))]
                remarks[entry.remarks.get(cell)] = None
            rows.append([*cells, ' '.join(filter(None, remarks))])
        head = [*layout.labels, *['mean\nM', 'mean\ncount'] * mean5, *heads, 'remark']
        notes = ['Top-1 in percent; trainable parameters in millions as printed (M), beside our exact count.']
        notes += ['The parameters are the mean over the five tasks.'] * mean5
        return Table(layout.title, head, rows, len(layout.labels), notes)
