"""Draw Figures 1 (accuracy against trainable parameters) and 4 (accuracy per epoch) of V-PETL, and 1c of SPT.

Each function writes a PNG and a PDF into a folder and returns their paths. The paper's points are drawn open, ours
filled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from ..engine.scalars import read_scalars
from ..errors import UserError
from ..figure import styled
from ..spt.budget import BUDGETS
from .names import Name, parse_name
from .table_layouts import DATASETS, METHODS, SWIN
from .tables import Tables
from .tradeoff import OTHER, OURS
from .vtab import BACKBONE, CLAIMS, SIZES, group_means, needed

MARKERS = {
    'full': 's', 'fc': 'v', 'lora': 'D', 'bitfit': 'P', 'adaptformer': '^', 'patt': 'o', 'bapat': '*',
    'prefix': 'X', 'vpt': 'h', 'sptlora': '*', 'sptadapter': 'o',
}  # fmt: skip
# the offset of a method's label from its point, in points
LABELS = dict(full=(-32, -14), bitfit=(-32, 6), patt=(4, -12), bapat=(4, 8), lora=(6, -9), prefix=(7, -3))


def figure1(tables: Tables, folder: Path) -> list[Path]:
    """Draw top-1 on SSv2 against trainable parameters, for Swin-B from K400 with 8 frames."""
    entries = defaultdict(list)
    for row in SWIN:
        entries[row.partition('/')[0]].append(tables.entry(f'T3/{row}/k400/f8', 'ssv2'))
    files, ran = _files(folder, 'figure1'), False
    with styled(files) as (axes,):
        for method, members in entries.items():
            paper = [(e.paper.params_m, e.paper.top1) for e in members]
            ours = [tables.ours[e.name] for e in members if e.name in tables.ours]
            points = [(o.params / 1e6, o.top1, o.spread) for o in ours]
            colour = OURS if method in ('patt', 'bapat') else OTHER
            _draw_method(axes, method, colour, paper, points, LABELS.get(method, (7, 3)))
            ran = ran or bool(ours)
        _finish(axes, 'the paper', ran, 'lower right')
        axes.set_ylabel('top-1 accuracy on SSv2 (%)')
    return files


def figure1c(tables: Tables, folder: Path) -> list[Path]:
    """Draw the mean over VTAB-1k against trainable parameters without the head, for supervised ViT-B.

    FC, which trains nothing but the head, is left out. Where the paper prints no share, the parameters are those of
    our config.
    """
    counts = tables.counted(needed(tables.ours))
    ours = tables.still(counts)
    files, ran = _files(folder, 'figure1c'), False
    with styled(files) as (axes,):
        for method in SIZES:
            row = group_means(method, 'in21k', ours, counts)
            claims = CLAIMS.get(method, ())
            paper = [((BACKBONE * share / 100 if share else row.params) / 1e6, top1) for top1, share in claims]
            points = [(row.params / 1e6, row.mean, 0)] if row.mean is not None and row.params else []
            offset = (-14, 8) if method == 'sptadapter' else (7, -11)
            _draw_method(axes, method, OURS if method.startswith('spt') else OTHER, paper, points, offset)
            ran = ran or row.mean is not None
        _finish(axes, 'the paper, read off its figure', ran, 'lower left')
        axes.xaxis.set_minor_formatter('{x:g}')
        axes.set_ylabel('mean top-1 accuracy on VTAB-1k (%)')
    return files


def _draw_method(axes, method: str, colour: str, paper: Sequence, ours: Sequence, offset: tuple[int, int]) -> None:
    """Draw the paper's points (millions of parameters, top-1), and ours (the same, and the spread)."""
    style = dict(marker=MARKERS[method], color=colour, linewidth=0.9, markersize=9 if method == 'bapat' else 6)
    if paper:
        axes.plot(*zip(*paper, strict=True), linestyle='--', markerfacecolor='white', **style)
    if ours:
        params, top1, spread = zip(*ours, strict=True)
        axes.errorbar(params, top1, yerr=spread if any(spread) else None, capsize=2.5, **style)
    if paper or ours:
        at = (paper or ours)[-1][:2]
        axes.annotate(METHODS[method], at, offset, textcoords='offset points', color=colour, fontsize=8)


def _finish(axes, paper: str, ran: bool, corner: str) -> None:
    axes.plot([], [], 'o', color=OTHER, markerfacecolor='white', label=paper)
    axes.plot([], [], 'o', color=OTHER, label='ours' if ran else 'ours: not run')
    axes.legend(frameon=False, loc=corner, fontsize=7)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.margins(x=0.24, y=0.14)
    axes.set_xlabel('trainable parameters (millions)')


def figure4(work_dirs: Path, folder: Path) -> list[Path]:
    """Draw top-1 per epoch of every run that was validated during training, one panel per data set.

    Raises:
        UserError: when no run has an accuracy for each epoch.
    """
    panels: dict[str, dict[Name, list[dict[int, float]]]] = {}
    for config, curve in read_curves(work_dirs):
        with suppress(UserError):  # your own experiments have no place in the legend
            name = parse_name(config)
            panels.setdefault(name.dataset, {}).setdefault(name, []).append(curve)
    if not panels:
        raise UserError(
            f'No run in {work_dirs} of a config in configs/ has an accuracy for each epoch; train one with '
            '--cfg-options holdout.fraction=0.05.'
        )
    files = _files(folder, 'figure4')
    with styled(files, len(panels)) as grid:
        for axes, (dataset, runs) in zip(grid, panels.items(), strict=True):
            for k, (name, curves) in enumerate(runs.items()):
                for curve in curves:  # the seeds of one experiment share colour and legend
                    label = legend(name) if curve is curves[0] else None
                    axes.plot(*zip(*curve.items(), strict=True), color=f'C{k % 10}', linewidth=1.1, label=label)
            axes.legend(frameon=False, fontsize=7)
            axes.set_xlabel('epoch')
            axes.set_ylabel(f'top-1 on held-out {DATASETS.get(dataset, dataset)} (%)')
    return files


def legend(name: Name) -> str:
    """Return an experiment's label in Figure 4: method, F (frames), S (scale), B (d_bottle), K (pre-training)."""
    if name.is_demo:
        return name.method.replace('_', ' ')
    parts = [name.method.upper() if 'pat' in name.method else name.method]
    parts += [f'F{name.frames}'] if name.frames else []
    parts += [f'S{name.scale:g}'] if name.scale is not None else []
    parts += [f'{name.size_kind.upper()}{name.size}'] if name.size else []
    return ' '.join([*parts, str(name.pretrain).upper()])


def read_curves(work_dirs: Path) -> list[tuple[str, dict[int, float]]]:
    """Read every run's validation accuracies from mmengine's ``vis_data/scalars.json``, ordered by experiment.

    Each is an experiment and its top-1 in percent by epoch, in order. A resumed run has several logs; where two have
    the same epoch, the later one counts. The experiment is the config that the run wrote into its work dir.

    Raises:
        UserError: for a corrupt log.
    """
    runs: dict[Path, dict[int, float]] = {}
    for log in sorted(Path(work_dirs).rglob('vis_data/scalars.json')):
        # runs that compare budgets train on a part of the list; a pipe would never end
        if BUDGETS in log.parts or not log.is_file():
            continue
        runs.setdefault(log.parents[2], {}).update(_validations(log))
    curves = []
    for folder, points in runs.items():
        configs = sorted(folder.glob('*.py'), key=lambda p: p.stat().st_mtime)
        if points and configs:
            curves.append((configs[-1].stem, dict(sorted(points.items()))))
    return sorted(curves, key=itemgetter(0))


def _validations(log: Path) -> dict[int, float]:
    points = {}
    for k, scalars in read_scalars(log):
        if 'acc/top1' not in scalars:
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
