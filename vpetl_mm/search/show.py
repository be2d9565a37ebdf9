"""What a search shows: a table while it runs, ``search.csv``, and a figure of values and learning curves."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table as RichTable

from ..errors import shortened
from ..figure import styled
from ..files import written_whole
from .settings import Search
from .space import Space
from .study import REASON, budget, counted, open_study, values_of, whole
from .trial import believed, result_of_run

CSV, FIGURE = 'search.csv', 'search.png'
STATES = {
    TrialState.COMPLETE: 'done',
    TrialState.PRUNED: 'pruned',
    TrialState.FAIL: 'failed',
    TrialState.RUNNING: 'running',
}
HEAD = ('search', 'best', 'trial', 'settings', *STATES.values(), 'of', 'left')
BEST, LOST = '#c1272d', '#8a8a8a'
DONE = '#1f4e79'


class SearchProgress:
    """How a search stands.

    Args:
        search: the search.
        trials: its budget.
        jobs: workers that share what is left.
        before: searches that they finish first. Defaults to none.
    """

    def __init__(self, search: Search, trials: int, jobs: int = 1, before: Sequence[SearchProgress] = ()) -> None:
        self.search, self.jobs, self.before = search, jobs, tuple(before)
        self.budget = budget(search, trials)
        self.study = open_study(search)
        self.told: set[int] = set()

    def row(self) -> list[str]:
        """Return a line of the table, in the order of :data:`HEAD`."""
        trials = counted(self.study)
        done = whole(self.search, trials)
        top = max(done, key=lambda t: t.value) if done else None
        shown = [f'{top.value:.2f}', str(top.number), self._settings(top)] if top else ['-', '-', '-']
        states = Counter(t.state for t in trials)
        return [self.search.name, *shown, *(str(states[s]) for s in STATES), str(self.budget), self.left()]

    def left(self) -> str:
        """Return the time until this search is over; ``'-'`` while it is unknown, nothing once it is."""
        work = [one.work() for one in (*self.before, self)]
        if not work[-1] and work[-1] is not None:
            return ''
        return '-' if None in work else duration(sum(work) / self.jobs)

    def work(self) -> float | None:
        """Return the seconds of one worker that are left, by the mean of the trials that have ended; None without."""
        over = [t for t in counted(self.study) if t.state.is_finished()]
        times = [t.duration.total_seconds() for t in over if t.duration]
        if (left := self.budget - len(over)) <= 0:
            return 0.0
        return mean(times) * left if times else None

    def news(self) -> list[str]:
        """Return a line for each trial that has ended since the last call."""
        lines = []
        for trial in counted(self.study):
            if trial.state.is_finished() and trial.number not in self.told:
                self.told.add(trial.number)
                value = f' {trial.value:.2f}' if trial.value is not None else ''
                why = f': {shortened(trial.user_attrs[REASON], 300)}' if REASON in trial.user_attrs else ''
                where = f'{self.search.name}, trial {trial.number} of {self.budget}'
                lines.append(f'{where}: {STATES[trial.state]}{value} ({self._settings(trial)}){why}')
        if lines:
            row = dict(zip(HEAD, self.row(), strict=True))
            left = f', about {row["left"]} left' if row['left'].strip('-') else ''
            lines[-1] += f'; best so far {row["best"]}{left}'
        return lines

    def _settings(self, trial: FrozenTrial) -> str:
        return ', '.join(f'{short(key)}={value}' for key, value in values_of(self.search, trial).items())


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    return (
        f'{seconds:.0f} s'
        if seconds < 90
        else f'{seconds / 60:.0f} min'
        if seconds < 5400
        else f'{seconds / 3600:.1f} h'
    )


def table(progresses: Sequence[SearchProgress]) -> RichTable:
    """Return the table of all searches, for a terminal."""
    shown = RichTable(box=None, pad_edge=False)
    for name in HEAD:
        shown.add_column(name, justify='left' if name in ('search', 'settings') else 'right', overflow='fold')
    for progress in progresses:
        shown.add_row(*progress.row())
    return shown


def short(key: str) -> str:
    """Return the end of a key that tells it from others: ``patt.d_bottle``, ``head.lr_mult``, ``lr``."""
    parts = key.split('.')
    return '.'.join(parts[-2:]) if 'deltas' in parts or 'groups' in parts else parts[-1]


def write_csv(search: Search) -> Path:
    """Write a row for each trial, in plain numbers; return the file."""
    file = Path(search.folder, CSV)
    with written_whole(file) as partial, open(partial, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['trial', 'state', search.metric, *search.spaces, 'params', 'epochs', 'seconds', 'reason'])
        for trial in counted(open_study(search)):
            record = None
            with suppress(ValueError):  # a damaged result of one trial does not hide the others
                record = result_of_run(search.trial_folder(trial.number))
            seconds = f'{trial.duration.total_seconds():.1f}' if trial.duration else ''
            writer.writerow(
                [
                    *(trial.number, STATES[trial.state], '' if trial.value is None else f'{trial.value:.6g}'),
                    *(values_of(search, trial).get(key, '') for key in search.spaces),
                    *(record.params if record else '', trial.last_step or 0, seconds),
                    shortened(trial.user_attrs.get(REASON, ''), 300),
                ]
            )
    return file


def draw(search: Search) -> Path:
    """Draw the value against each searched setting, and every trial's learning curve; return the file."""
    file = Path(search.folder, FIGURE)
    trials = counted(open_study(search))
    done = believed(search, trials)
    pruned = [t for t in trials if t.state == TrialState.PRUNED and t.value is not None]
    top = max(done, key=lambda t: t.value) if done else None
    count = len(search.spaces) + 1
    with styled([file], count, (3.4 if count < 4 else 2.5, 3.0)) as panels:
        for axes, (key, space) in zip(panels, search.parsed().items(), strict=False):
            _scatter(axes, search, key, pruned, LOST, 'x', 'pruned')
            _scatter(axes, search, key, done, DONE, 'o', 'to the end')
            _scatter(axes, search, key, [top] if top else [], BEST, '*', 'best')
            _axis(axes, space)
            axes.set_xlabel(short(key))
        panels[0].set_ylabel(f'{search.metric} on held-out data')
        panels[0].legend(frameon=False, fontsize=7)
        _curves(panels[-1], search, trials, top)
    return file


def _axis(axes: Any, space: Space) -> None:
    """Show the whole space: a list's values side by side in its order, a range from end to end."""
    if space.kind == 'list':
        axes.set_xticks(range(len(space.values)), [str(value) for value in space.values])
        axes.set_xlim(-0.5, len(space.values) - 0.5)
        return
    low, high = space.values
    if space.kind == 'log':
        axes.set_xscale('log')
        axes.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
        axes.xaxis.set_minor_formatter('')
        axes.xaxis.set_major_formatter('{x:g}')
    else:
        axes.set_xlim(low - (high - low) * 0.04, high + (high - low) * 0.04)
        axes.xaxis.get_major_locator().set_params(integer=space.kind == 'int')


def _scatter(
    axes: Any, search: Search, key: str, trials: Sequence[FrozenTrial], colour: str, marker: str, label: str
) -> None:
    space = search.parsed()[key]
    points = [(values_of(search, t)[key], t.value) for t in trials if key in t.params]
    if points:
        values, scores = zip(*points, strict=True)
        places = [space.values.index(value) for value in values] if space.kind == 'list' else values
        axes.scatter(places, scores, 70 if marker == '*' else 16, colour, marker, label=label, zorder=3)


def _curves(axes: Any, search: Search, trials: Sequence[FrozenTrial], top: FrozenTrial | None) -> None:
    for trial in trials:
        curve = sorted(trial.intermediate_values.items())
        if curve:
            mine = top is not None and trial.number == top.number
            colour = BEST if mine else LOST if trial.state != TrialState.COMPLETE else DONE
            style = dict(
                color=colour, linewidth=1.8 if mine else 0.8, alpha=1 if mine else 0.6, zorder=3 if mine else 2
            )
            axes.plot(*zip(*curve, strict=True), marker='.', markersize=3, **style)
    axes.set_xlabel('epoch')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(search.metric)
