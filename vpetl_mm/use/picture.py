"""A picture of one prediction: the frames in a row, and the likeliest classes as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import tellable
from ..files import written_whole
from .reader import Sample

WIDTH, DPI = 12.8, 125  # inches; 1600 pixels
EDGE = 0.35  # inches around everything
GAP = 0.06  # inches between frames
BAR = 0.42  # inches from bar to bar
TITLE = 0.75  # inches for the likeliest class
FOOT = 0.3  # inches for the input's name
STRONG, WEAK, TEXT, FAINT = '#1f6feb', '#c3cbd6', '#1c2128', '#6e7781'
MOST_LETTERS = 60
STYLE = {'text.parse_math': False, 'font.size': 13, 'text.color': TEXT}


def draw(told: Mapping[str, Any], sample: Sample, file: Path) -> None:
    """Draw a prediction to a PNG file of 1600 pixels of width.

    Args:
        told: as of :meth:`Prediction.told`, without an error.
        sample: the input as it was read, with its frames.
        file: the picture.
    """
    with mpl.rc_context(STYLE):
        figure = _figure(told, sample)
        with written_whole(file) as partial, open(partial, 'wb') as stream:
            FigureCanvasAgg(figure).print_png(stream)


def _figure(told: Mapping[str, Any], sample: Sample) -> Figure:
    top, beside = told['topk'], len(sample.frames) == 1
    bars = BAR * len(top)
    frames = _row(sample, (WIDTH - 2 * EDGE) * (0.42 if beside else 1), max(bars, 3.4) if beside else 2.6)
    under = 0.25 if sample.times else 0.0
    height = EDGE + TITLE + (max(frames[0][3], bars) if beside else frames[0][3] + under + 0.25 + bars) + FOOT + 0.2
    figure = Figure((WIDTH, height), DPI, facecolor='white')

    def axes(left: float, upper: float, width: float, tall: float) -> Axes:
        return figure.add_axes((left / WIDTH, 1 - (upper + tall) / height, width / WIDTH, tall / height))

    _title(figure, top[0], EDGE, height)
    upper = EDGE + TITLE
    for place, (left, _, width, tall) in enumerate(frames):
        _show(axes(left, upper, width, tall), sample, place)
    left = EDGE + (frames[0][2] + 0.4 if beside else 0)
    upper += max(0.0, (frames[0][3] - bars) / 2) if beside else frames[0][3] + under + 0.25
    _bars(axes(left, upper, WIDTH - EDGE - left, bars), top, WIDTH - EDGE - left)
    figure.text(EDGE / WIDTH, (EDGE * 0.6) / height, _short(told['input'] or '', 110, end=True), color=FAINT, size=11)
    return figure


def _title(figure: Figure, best: Mapping[str, Any], left: float, height: float) -> None:
    name = figure.text(
        left / WIDTH, 1 - (EDGE + 0.1) / height, _short(best['name']), size=24, weight='bold', va='top', color=TEXT
    )
    box = name.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    share = f'{best["probability"]:.1%}'
    figure.text(box.x1 / DPI / WIDTH + 0.012, 1 - (EDGE + 0.1) / height, share, size=24, va='top', color=STRONG)


def _row(sample: Sample, width: float, most: float) -> list[tuple[float, float, float, float]]:
    """Return left, top, width and height of each frame, in inches, all of one height of at most ``most``."""
    ratios = [frame.shape[1] / frame.shape[0] for frame in sample.frames]
    tall = min(most, (width - GAP * (len(ratios) - 1)) / sum(ratios))
    spots, left = [], EDGE
    for ratio in ratios:
        spots.append((left, 0.0, ratio * tall, tall))
        left += ratio * tall + GAP
    return spots


def _show(axes: Axes, sample: Sample, place: int) -> None:
    axes.imshow(sample.frames[place], aspect='auto', interpolation='lanczos')
    axes.set_axis_off()
    if sample.times:
        at = f'{sample.times[place]:.2f} s'
        axes.text(0, -0.06, at, transform=axes.transAxes, va='top', size=10, color=FAINT)


def _bars(axes: Axes, top: Sequence[Mapping[str, Any]], width: float) -> None:
    """Draw horizontal bars, their names to the left and their shares behind them."""
    letters = max(len(_short(entry['name'])) for entry in top)
    names = min(0.5, (0.118 * letters + 0.2) / width)  # of the width
    room = 1 - names - 0.75 / width
    for place, entry in enumerate(top):
        y, share, best = len(top) - 1 - place, entry['probability'], place == 0
        axes.barh(y, share * room, 0.62, names, color=STRONG if best else WEAK)
        label = dict(va='center', weight='bold' if best else 'normal')
        axes.text(names - 0.1 / width, y, _short(entry['name']), ha='right', **label)
        axes.text(names + share * room + 0.08 / width, y, f'{share:.1%}', ha='left', **label)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(top) - 0.5)
    axes.set_axis_off()


def _short(text: str, most: int = MOST_LETTERS, end: bool = False) -> str:
    text = tellable(text)
    if len(text) <= most:
        return text
    return f'…{text[1 - most :]}' if end else f'{text[: most - 1]}…'
