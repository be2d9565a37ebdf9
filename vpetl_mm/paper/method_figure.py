"""Draw what was measured of every method on one host: time against memory, parameters as area."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import cos, log10, pi, sin
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import UserError
from ..figure import styled
from ..measure.method_benchmark import FULL, HOST, Measured
from ..measure.method_table import ratios
from .tradeoff import CONTROL, OTHER, OURS

FORMATS = ('.png', '.svg', '.pdf')
LARGEST = 1500.0  # square points of the disc for the most parameters
SIZE = 6.5  # of a label, in points
Box = tuple[float, float, float, float]  # left, bottom, right, top


def check_figure(file: Path) -> None:
    """Raise :class:`UserError` where :func:`draw_methods` could not write ``file``."""
    if file.suffix not in FORMATS:
        raise UserError(f'--out {file} must end in {", ".join(FORMATS)}.')
    if not file.absolute().parent.is_dir():
        raise UserError(f'--out {file} cannot be written: its folder does not exist.')


def draw_methods(found: Mapping[str, Measured], file: Path) -> None:
    """Draw a training step's time against its saved activations, of full tuning, to PNG, SVG or PDF by the suffix.

    A disc's area is the number of parameters that train. What the host refused is left out.
    """
    full = found[FULL]
    points = {
        name: (median(ratios(one.step, full.step)), one.saved / full.saved)
        for name, one in found.items()
        if not one.refused
    }
    most = max(found[name].trains for name in points)
    area = LARGEST / most
    with styled([file], size=(8, 6)) as (axes,):
        for name, (x, y) in points.items():
            colour = _colour(name)
            axes.scatter(x, y, s=area * found[name].trains, color=colour, alpha=0.3, linewidths=0)
            axes.scatter(x, y, s=5, color=colour, linewidths=0)
        axes.set_xlabel('training step, of full tuning')
        axes.set_ylabel('saved activations, of full tuning')
        axes.margins(0.08)
        for count in (10**power for power in range(int(log10(most)) - 2, int(log10(most)) + 1)):
            axes.scatter([], [], s=area * count, color=CONTROL, alpha=0.3, linewidths=0, label=f'{count:,}')
        axes.legend(title='parameters', loc='upper left', frameon=False, fontsize=7, title_fontsize=7)
        _label(axes, points)


def _colour(name: str) -> str:
    if name in (FULL, HOST):
        return CONTROL
    return OURS if name.startswith(('patt', 'bapat')) else OTHER


def _label(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Name the points, each label at the nearest free place, with a line to its point."""
    axes.figure.canvas.draw()  # decides where the axes lie
    scale = 72 / axes.figure.dpi
    at = {name: axes.transData.transform(point) * scale for name, point in points.items()}
    taken = [(x - 2, y - 2, x + 2, y + 2) for x, y in at.values()]
    left, bottom, right, top = (axes.bbox.extents * scale).tolist()
    for name in sorted(points, key=lambda n: (-at[n][1], at[n][0])):
        width, height = 0.6 * SIZE * len(name), 1.15 * SIZE
        places = [(x, y, x + width, y + height) for x, y in _around(*at[name], width, height)]
        inside = [p for p in places if p[0] > left and p[1] > bottom and p[2] < right and p[3] < top] or places
        box = next((p for p in inside if not any(_overlap(p, other) for other in taken)), inside[0])
        taken.append(box)
        x, y = at[name]
        nearest = (min(max((x - box[0]) / width, 0), 1), min(max((y - box[1]) / height, 0), 1))
        line = dict(arrowstyle='-', linewidth=0.3, color=_colour(name), shrinkA=0, shrinkB=0, relpos=nearest)
        place = dict(xytext=(box[0] - x, box[1] - y), textcoords='offset points', va='bottom', arrowprops=line)
        axes.annotate(name, points[name], fontsize=SIZE, color=_colour(name), **place)


def _around(x: float, y: float, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield lower left corners of a box, from the nearest to a point outwards, in points."""
    for distance in range(4, 160, 4):
        for turn in range(16):
            dx, dy = cos(turn * pi / 8), sin(turn * pi / 8)
            yield x + distance * dx + (dx - 1) * width / 2, y + distance * dy + (dy - 1) * height / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
