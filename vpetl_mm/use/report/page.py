"""Writes report.html, one self-contained page about a test."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from mmengine import Config

from ...engine.run_folder import REPORT_START
from ...errors import reason, shortened, tellable
from ...files import written_whole
from . import figures
from .groups import SINGLE, groups_of
from .listing import own_and_other
from .numbers import LEVEL, calibration, confused_pairs, confusions, mean_share, share
from .run import Tested, read_tested
from .strips import Arrays, arrays_of, strip_of

PAIRS, MISTAKES = 12, 12  # shown
MANY, LOWEST, HIGHEST = 40, 12, 5  # classes: all are shown up to so many, then the lowest and the highest


def report_of(result: Path) -> Path:
    """Return the file of the report on a result: ``report_mini.html`` for ``result_mini.json``."""
    return result.with_name(result.name.replace('result', 'report', 1)).with_suffix('.html')


def leave_report(result: Path, predictions: Path, cfg: Config | None = None) -> str:
    """Write the report on a test if it can be; return a line that says where it is, or why there is none."""
    if not result.is_file():
        return 'report: none, as the evaluator gives other scores than top-1, top-5 and mean class accuracy'
    try:
        return f'report: {write_report(result, predictions, cfg)}'
    except Exception as error:  # a failed report must not fail the test, whose result is written
        return tellable(f'report: none, as it cannot be written ({reason(error, 1000)}); the result is complete')


def write_report(result: Path, predictions: Path, cfg: Config | None = None) -> Path:
    """Write the report on a test beside its result, whole or not at all, and return its file.

    Args:
        result: ``result.json`` in the folder of the run, whose logs tell the rest.
        predictions: the CSV file of the same test.
        cfg: the experiment, from which samples without a file, such as CIFAR's, are read; without it they are
            described in words.

    Raises:
        UserError: when the files are missing or broken, or do not belong together.
    """
    tested = read_tested(Path(result), Path(predictions))
    text = render(tested, None if cfg is None else arrays_of(cfg))
    report = report_of(Path(result))
    with written_whole(report) as partial:
        partial.write_text(text, encoding='utf-8')
    return report


def render(tested: Tested, arrays: Arrays | None = None) -> str:
    """Return the page as HTML, with everything in it."""
    loader = PackageLoader(__package__, 'page')
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        name=lambda text, most=70: shortened(text, most),
        file=lambda text: shortened(text, 90, end=True),
        number='{:,}'.format,
        percent='{:.1f}'.format,
        css='{:.2f}'.format,
    )
    about = dict(
        start=REPORT_START,
        tested=tested,
        record=tested.record,
        made=f'{datetime.now().astimezone():%Y-%m-%d %H:%M}',
        version=_version(),
        level=round(100 * LEVEL),
        **_scores(tested),
        **_confusion(tested),
        mistakes=_mistakes(tested, arrays),
        trained=_trained(tested),
        training_figures=figures.curve_drawings(tested.curves),
        settings=own_and_other(tested),
    )
    return environment.get_template('report.html.j2').render(about)


def _scores(tested: Tested) -> dict[str, Any]:
    """Return the scores, those of each class, and the calibration."""
    found, right = tested.predictions, tested.predictions.right
    of = np.bincount(found.labels, minlength=found.classes)
    hits = np.bincount(found.labels, right, minlength=found.classes)
    classes = [(c, share(hits[c], of[c])) for c in np.flatnonzero(of).tolist()]
    classes.sort(key=lambda entry: (entry[1].percent, entry[0]))
    shares, seen = [s for _, s in classes], found.readable
    many = len(classes) > MANY
    scores = [
        ('top-1', share(right.sum(), len(right))),
        *([('top-5', share(found.within(5), len(right)))] if found.classes > 5 else []),
        ('mean class', mean_share(shares)),
    ]
    return dict(
        scores=scores,
        classes=classes,
        absent=found.classes - len(classes),
        ends=(classes[:LOWEST], classes[-HIGHEST:]) if many else None,
        classes_figure=figures.sorted_accuracies(shares) if many else None,
        unreadable=[f for f, ok in zip(found.files, seen, strict=True) if not ok],
        calibration=(cal := calibration(found.confidence[seen], right[seen]) if seen.any() else None),
        calibration_figure=cal and figures.reliability(cal),
    )


def _confusion(tested: Tested) -> dict[str, Any]:
    """Return the matrix, of the classes or of their groups, and the pairs that are confused most often."""
    found, seen = tested.predictions, tested.predictions.readable
    counts = confusions(found.labels[seen], found.predicted[seen], found.classes)
    groups, of = groups_of(found), np.bincount(found.labels, minlength=found.classes).tolist()
    matrix, wrong = groups.of(counts), counts.sum() - np.trace(counts)
    grouped = found.classes > SINGLE
    rates = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    inside = (np.trace(matrix) - np.trace(counts)) / wrong if wrong else 0.0
    return dict(
        grouped=grouped,
        groups=groups,
        heads=[max(group, key=lambda c: of[c]) for group in groups.members],
        matrix=matrix.tolist(),
        rates=rates.tolist(),
        wrong=int(wrong),
        inside=100 * float(inside),
        chance=100 * sum(len(g) * (len(g) - 1) for g in groups.members) / max(found.classes * (found.classes - 1), 1),
        picture=figures.matrix_picture(counts, groups.order) if grouped else None,
        pairs=confused_pairs(counts, PAIRS),
        of=of,
    )


def _mistakes(tested: Tested, arrays: Arrays | None) -> list[dict[str, Any]]:
    """Return the mistakes that the model was surest of, with their pictures."""
    found = tested.predictions
    wrong = np.flatnonzero(found.readable & ~found.right)
    surest = wrong[np.argsort(-found.confidence[wrong], kind='stable')][:MISTAKES]
    return [
        dict(
            file=found.files[i],
            place=i + 1,
            label=int(found.labels[i]),
            predicted=int(found.predicted[i]),
            confidence=100 * float(found.confidence[i]),
            of_label=100 * float(found.probabilities[i, found.labels[i]]),
            strip=strip_of(found.files[i], i, int(found.labels[i]), tested.dataset, arrays),
        )
        for i in surest.tolist()
    ]


def _trained(tested: Tested) -> list[tuple[str, int, float, float]]:
    """Return, for each delta and train name, its parameters, and their shares of what trains and of the model."""
    record = tested.record
    by = sorted(record.by.items(), key=lambda item: -item[1])
    return [(k, n, 100 * n / max(record.params, 1), 100 * n / max(record.total, 1)) for k, n in by]


def _version() -> str:
    try:
        return version('vpetl_mm')
    except PackageNotFoundError:  # a checkout in the path
        return ''
