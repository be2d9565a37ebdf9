"""Two or more tested runs, compared: settings, scores, McNemar's test on the same samples, curves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.run_folder import RESULT
from ...engine.settings import MAY_CHANGE, PARTS, UNSET, dotted, leaves, shown
from ...errors import UserError, tellable
from .numbers import Share, mcnemar, mean_share, share
from .predictions import Predictions
from .run import Tested, read_tested

WIDEST = 40  # characters of a column


@dataclass(frozen=True)
class ComparedRun:
    """A tested run and its name in a comparison."""

    name: str
    tested: Tested


def read_runs(given: Sequence[str]) -> list[ComparedRun]:
    """Read the runs to compare, each from its folder or its result file, and name them.

    Raises:
        UserError: for fewer than two, one twice, or one without a result or predictions.
    """
    results = [_result(Path(run)) for run in given]
    if len(results) < 2:
        raise UserError(f'A comparison takes at least two runs; only {given[0]} was given.')
    twice = [r for r, n in Counter(r.resolve() for r in results).items() if n > 1]
    if twice:
        raise UserError(f'{twice[0]} is given twice.')
    tested = [
        read_tested(r, r.with_name(r.name.replace('result', 'predictions', 1)).with_suffix('.csv')) for r in results
    ]
    return [ComparedRun(name, t) for name, t in zip(_names(given, tested), tested, strict=True)]


def _result(run: Path) -> Path:
    if run.is_file():
        if not RESULT.fullmatch(run.name):
            raise UserError(f'{run} is not a run: give its folder, or its result.json.')
        return run
    if not run.is_dir():
        raise UserError(f'{run} does not exist: give the folder of a run, such as work_dirs/demo_bapat.')
    if (run / 'result.json').is_file():
        return run / 'result.json'
    others = [str(p) for p in sorted(run.iterdir()) if RESULT.fullmatch(p.name) and p.is_file()]
    hint = f'give one of {", ".join(others[:5])}' if others else 'tools/test.py writes it'
    raise UserError(f'{run} has no result.json: {hint}.')


def _names(given: Sequence[str], tested: Sequence[Tested]) -> list[str]:
    """Name each run by its config, with the seed where configs are the same, or by its path where both are."""
    records = [t.record for t in tested]
    for names in ([r.config for r in records], [f'{r.config}, seed {r.seed}' for r in records]):
        if len({*names}) == len(names):
            return names
    return [tellable(run)[-WIDEST:] for run in given]


def settings_that_differ(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Return the settings that decide what a run computes and differ between runs: by name, the value in each.

    Where inputs lie, workers and logs are left out; the pre-trained base is not. If the folder of a run has no log of
    its training, only model and test are compared.
    """
    parts = PARTS if all(run.tested.training for run in runs) else ('model', 'data_preprocessor')
    found = [dict(_settings(run.tested, parts)) for run in runs]
    names = sorted({name for settings in found for name in settings})
    rows = {name: [settings.get(name, UNSET) for settings in found] for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values)}


def _settings(tested: Tested, parts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings in ``parts`` of a run's training and, of its test, those of the data."""
    training = tested.training or tested.testing
    for keys, value in leaves({name: training[name] for name in parts if name in training}):
        name = dotted(keys)
        if name.startswith('model.base') or not MAY_CHANGE.fullmatch(name):
            yield name, value
    for keys, value in leaves({'test_dataloader': tested.testing.get('test_dataloader')}):
        name = dotted(keys)
        if name != 'test_dataloader.batch_size' and not MAY_CHANGE.fullmatch(re.sub('^test', 'val', name)):
            yield name, value
    yield from ((k, v) for k, v in tested.record.options.items() if k.startswith('spt.'))  # how it was chosen


def same_samples(one: Predictions, two: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, in each of two tests, of the samples that both have: those with the same path.

    A file that is listed several times is matched in order. Images out of arrays, which have no file, are matched by
    their places if both tests have as many.
    """
    if not any(one.files) and not any(two.files):
        every = np.arange(len(one.files) if len(one.files) == len(two.files) else 0)
        return every, every
    first, second = (dict(_numbered(p.files)) for p in (one, two))
    shared = [name for name in first if name in second]
    return np.array([first[s] for s in shared], dtype=int), np.array([second[s] for s in shared], dtype=int)


def _numbered(names: Sequence[str]) -> Iterator[tuple[tuple[str, int], int]]:
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        yield (name, seen[name]), place
        seen[name] += 1


def paired(one: ComparedRun, two: ComparedRun) -> str:
    """Return, as lines of text, how two runs differ on the samples that both were tested on."""
    first, second = one.tested.predictions, two.tested.predictions
    here, there = same_samples(first, second)
    title, of = f'{one.name} and {two.name}', f'{len(first.files):,} and {len(second.files):,}'
    if not len(here):
        return f'{title}: no test, as they share no sample: no path is in both (of {of}).'
    differ = int((first.labels[here] != second.labels[there]).sum())
    if differ:
        return f'{title}: no test, as {differ:,} of {len(here):,} shared samples have other labels.'
    a, b = first.right[here], second.right[there]
    test = mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    return (
        f'{title}: {len(here):,} shared samples (of {of})\n'
        f'  right: both {int((a & b).sum()):,}, only {one.name} {test.first:,}, only {two.name} {test.second:,}, '
        f'neither {int((~a & ~b).sum()):,}\n'
        f'  top-1 there: {100 * a.mean():.2f} and {100 * b.mean():.2f}, {100 * (a.mean() - b.mean()):+.2f} points; '
        f'p = {test.p:.3g} ({test.how})'
    )


def comparison(runs: Sequence[ComparedRun]) -> str:
    """Return the comparison as text."""
    names = [run.name for run in runs]
    blocks = [_table([['', *names], *_scores(runs)])]
    differ = settings_that_differ(runs)
    rows = [[name, *map(shown, values)] for name, values in differ.items()]
    title = f'{len(rows)} settings differ' if len(rows) != 1 else '1 setting differs'
    blocks.append(f'{title}:\n{_table([["", *names], *rows])}' if rows else 'No setting differs.')
    unknown = [run.name for run in runs if not run.tested.training]
    if unknown:
        blocks.append(f'Only the model and the test were compared, without a training log of {", ".join(unknown)}.')
    pairs = [paired(*pair) for pair in combinations(runs, 2)]
    note = f'\n(the p-values are not adjusted for {len(pairs)} tests)' if len(pairs) > 1 else ''
    blocks.append("McNemar's test of top-1 on the same samples:\n" + '\n'.join(pairs) + note)
    return '\n\n'.join(blocks)


def _scores(runs: Sequence[ComparedRun]) -> Iterator[list[str]]:
    records = [run.tested.record for run in runs]
    yield ['tested', *(f'{r.checkpoint}, epoch {r.epoch}, seed {r.seed}' for r in records)]
    yield ['trained', *(f'{r.params:,} ({100 * r.params / max(r.total, 1):.2f} %)' for r in records)]
    yield ['samples', *(f'{r.samples:,}' for r in records)]
    for name, of in (('top-1', _top1), ('top-5', lambda p: share(p.within(5), len(p.labels))), ('mean class', _mean)):
        shares = [of(run.tested.predictions) for run in runs]
        yield [name, *(f'{s.percent:.2f} ({s.low:.2f} to {s.high:.2f})' for s in shares)]


def _top1(found: Predictions) -> Share:
    return share(found.right.sum(), len(found.right))


def _mean(found: Predictions) -> Share:
    of, hits = (np.bincount(found.labels, w, found.classes) for w in (None, found.right))
    return mean_share([share(h, n) for h, n in zip(hits, of, strict=True) if n])


def _table(rows: Sequence[Sequence[str]]) -> str:
    cut = [
        [cell if len(cell) <= WIDEST or not k else f'{cell[: WIDEST - 3]}...' for k, cell in enumerate(row)]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    lines = ('  '.join(f'{c:{w}}' for c, w in zip(row, widths, strict=True)).rstrip() for row in cut)
    return '\n'.join(map(tellable, lines))
