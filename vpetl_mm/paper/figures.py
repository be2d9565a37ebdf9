"""Figure 1, accuracy against trainable parameters, and 4, accuracy per epoch, of V-PETL; Figure 1c of SPT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import from_json
from ..spt.budget import BUDGETS
from .names import Name, parse_name
from .table_layouts import DATASETS, METHODS, SWIN
from .tables import Tables
from .tradeoff import MARKERS, OTHER, OURS, styled
from .vtab import BACKBONE, CLAIMS, SIZES, GroupMeans, group_means, needed

FIGURES = ('figure1', 'figure1c', 'figure4')
# how far from its point a method's label stands, in points
LABELS = {
    'full': (-32, -14),
    'bitfit': (-32, 6),
    'patt': (4, -12),
    'bapat': (4, 8),
    'lora': (6, -9),
    'prefix': (7, -3),
}


@dataclass(frozen=True)
class Curve:
    """One run's accuracy: (epoch, top-1 in percent), in the order of the epochs."""

    config: str
    points: tuple[tuple[int, float], ...]


def figure1(tables: Tables, folder: Path) -> list[Path]:
    """Draw top-1 on SSv2 against trainable parameters, Swin-B from K400 with 8 frames.

    Args:
        tables: the paper's points, open, come from its entries; ours, filled, from its results.
        folder: gets ``figure1.png`` and ``figure1.pdf``.
    """
    series: dict[str, list] = {}
    for row in SWIN:
        series.setdefault(row.partition('/')[0], []).append(tables.entry(f'T3/{row}/k400/f8', 'ssv2'))
    files = _files(folder, 'figure1')
    with styled(files) as (axes,):
        for method, entries in series.items():
            colour = OURS if method in ('patt', 'bapat') else OTHER
            style = dict(
                marker=MARKERS[method], color=colour, linewidth=0.9, markersize=9 if method == 'bapat' else 5.5
            )
            xs, ys = [e.paper.params_m for e in entries], [e.paper.top1 for e in entries]
            axes.plot(xs, ys, linestyle='--', markerfacecolor='white', **style)
            axes.annotate(
                METHODS[method],
                (xs[-1], ys[-1]),
                LABELS.get(method, (7, 3)),
                textcoords='offset points',
                color=colour,
            )
            ours = [tables.ours[e.name] for e in entries if e.name in tables.ours]
            if ours:
                spread = [o.spread for o in ours] if any(o.spread for o in ours) else None
                axes.errorbar(
                    [o.params / 1e6 for o in ours], [o.top1 for o in ours], yerr=spread, capsize=2.5, **style
                )
        axes.plot([], [], 'o', color=OTHER, markerfacecolor='white', label='the paper')
        axes.plot([], [], 'o', color=OTHER, label='ours' if _any_ours(tables, series) else 'ours: not run')
        axes.legend(frameon=False, loc='lower right')
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:g}')
        axes.margins(x=0.16, y=0.12)
        axes.set_xlabel('trainable parameters (millions)')
        axes.set_ylabel('top-1 accuracy on SSv2 (%)')
    return files


def figure1c(tables: Tables, folder: Path) -> list[Path]:
    """Draw the mean over VTAB-1k against trainable parameters without the head, supervised ViT-B.

    FC, which then trains nothing, has no place in it.

    Args:
        tables: of which the results are ours, filled. The paper's points are open; where it prints no share, the
            parameters are those of our config.
        folder: gets ``figure1c.png`` and ``figure1c.pdf``.
    """
    counts = tables.counted(needed(tables.ours))
    ours = tables.still(counts)
    rows = {method: group_means(method, 'in21k', ours, counts) for method in SIZES}
    files = _files(folder, 'figure1c')
    with styled(files) as (axes,):
        for method, row in rows.items():
            _draw_means(axes, method, row)
        ran = any(row.mean is not None for row in rows.values())
        axes.plot([], [], 'o', color=OTHER, markerfacecolor='white', label='the paper, read off its figure')
        axes.plot([], [], 'o', color=OTHER, label='ours' if ran else 'ours: not run')
        axes.legend(frameon=False, loc='lower left', fontsize=7)
        axes.set_xscale('log')
        for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            set_formatter('{x:g}')
        axes.margins(x=0.22, y=0.16)
        axes.set_xlabel('trainable parameters (millions)')
        axes.set_ylabel('mean top-1 accuracy on VTAB-1k (%)')
    return files


def _draw_means(axes, method: str, row: GroupMeans) -> None:
    """The paper's points of a method, open, and ours, filled."""
    colour = OURS if method.startswith('spt') else OTHER
    style = dict(marker=MARKERS[method], color=colour, linewidth=0.9, markersize=6)
    claims = [(BACKBONE * share / 100 if share else row.params, top1) for top1, share in CLAIMS.get(method, ())]
    points = [(params / 1e6, top1) for params, top1 in claims]
    mine = [(row.params / 1e6, row.mean)] if row.mean is not None and row.params else []
    if points:
        axes.plot(*zip(*points, strict=True), linestyle='--', markerfacecolor='white', **style)
    if mine:
        axes.plot(*zip(*mine, strict=True), linestyle='', **style)
    if points or mine:
        at, offset = (points or mine)[-1], (-14, 8) if method == 'sptadapter' else (7, -11)
        axes.annotate(METHODS[method], at, offset, textcoords='offset points', color=colour, fontsize=7)


def _any_ours(tables: Tables, series: dict[str, list]) -> bool:
    return any(e.name in tables.ours for entries in series.values() for e in entries)


def figure4(work_dirs: Path, folder: Path) -> list[Path]:
    """Draw top-1 per epoch of every run that was validated while it trained, a panel for each data set.

    Args:
        work_dirs: where the runs are.
        folder: gets ``figure4.png`` and ``figure4.pdf``.

    Raises:
        UserError: when no run has an accuracy for each epoch.
    """
    runs = [(_name(curve), curve) for curve in read_curves(work_dirs)]
    panels: dict[str, list[tuple[Name, Curve]]] = {}
    for name, curve in runs:
        if name is not None:
            panels.setdefault(name.dataset, []).append((name, curve))
    if not panels:
        raise UserError(
            f'No run of a config here below {work_dirs} has an accuracy for each epoch; train one with '
            '--cfg-options holdout.fraction=0.05.'
        )
    files = _files(folder, 'figure4')
    with styled(files, len(panels)) as grid:
        for axes, (dataset, members) in zip(grid, panels.items(), strict=True):
            _draw_curves(axes, members)
            axes.set_xlabel('epoch')
            axes.set_ylabel(f'top-1 on held-out {DATASETS.get(dataset, dataset)} (%)')
    return files


def _name(curve: Curve) -> Name | None:
    """What a run's name says; None for an experiment of the user's own, which the figure has no legend for."""
    try:
        return parse_name(curve.config)
    except UserError:
        return None


def _draw_curves(axes, runs: Sequence[tuple[Name, Curve]]) -> None:
    names = list(dict.fromkeys(name for name, _ in runs))
    for name, curve in runs:
        first = all(n != name or c is curve for n, c in runs[: runs.index((name, curve))])
        label = legend(name) if first else None  # seeds of one experiment share colour and entry
        axes.plot(*zip(*curve.points, strict=True), color=f'C{names.index(name) % 10}', linewidth=1.1, label=label)
    axes.legend(frameon=False, fontsize=7)


def legend(name: Name) -> str:
    """An experiment in the legend of Figure 4: method, F (frames), S (scale), B (d_bottle), K (pre-training)."""
    if name.is_demo:
        return name.method.replace('_', ' ')
    parts = [name.method.upper() if 'pat' in name.method else name.method]
    parts += [f'F{name.frames}'] if name.frames else []
    parts += [f'S{name.scale:g}'] if name.scale is not None else []
    parts += [f'{name.size_kind.upper()}{name.size}'] if name.size else []
    return ' '.join([*parts, str(name.pretrain).upper()])


def read_curves(work_dirs: Path) -> list[Curve]:
    """Every run's validation accuracies, from mmengine's ``vis_data/scalars.json``, by the experiment's name.

    A resumed run has several logs; where two have an epoch, the later one counts. The experiment is named by the
    config that the run wrote into its work dir.
    """
    runs: dict[Path, dict[int, float]] = {}
    for log in sorted(Path(work_dirs).rglob('vis_data/scalars.json')):
        # trained to compare budgets, on a part of the list; or without an end, as a pipe
        if BUDGETS in log.parts or not log.is_file():
            continue
        runs.setdefault(log.parents[2], {}).update(_validations(log))
    curves = []
    for folder, points in runs.items():
        configs = sorted(folder.glob('*.py'), key=lambda p: p.stat().st_mtime)
        if points and configs:
            curves.append(Curve(configs[-1].stem, tuple(sorted(points.items()))))
    return sorted(curves, key=lambda c: c.config)


def _validations(log: Path) -> dict[int, float]:
    points = {}
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    for k, line in enumerate(lines, 1):
        try:
            scalars = from_json(line)
        except ValueError as error:
            if k == len(lines):  # the run was killed in the middle of it
                break
            raise UserError(f'The log {log} is corrupt in line {k} ({error}).') from error
        if not isinstance(scalars, dict) or 'acc/top1' not in scalars:
            continue
        step, top1 = scalars.get('step'), scalars['acc/top1']
        if type(step) is not int or not isinstance(top1, (int, float)) or not 0 <= top1 <= 100:
            raise UserError(f'The log {log} is corrupt in line {k}: acc/top1 {top1!r} at step {step!r}.')
        points[step] = float(top1)
    return points


def _files(folder: Path, stem: str) -> list[Path]:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--out for figures is a folder, and {folder} is a file.')
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / f'{stem}.png', folder / f'{stem}.pdf']
