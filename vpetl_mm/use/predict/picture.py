"""A picture of one prediction: the frames in a row, and the likeliest classes as bars."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from ...errors import shortened
from ...files import written_whole
from .reader import Sample

DPI = 125
WIDTH = 12.8  # inches; 1600 pixels
EDGE = 0.35  # inches around everything
GAP = 8  # pixels between frames
BAR = 0.42  # inches from bar to bar
TITLE = 0.75  # inches for the likeliest class
FOOT = 0.5  # inches for the input's name
TALLEST, TALLEST_ALONE = 2.6, 3.6  # inches, of frames in a row and of one beside the bars
STRONG, WEAK, TEXT, FAINT = '#1f6feb', '#c3cbd6', '#1c2128', '#6e7781'
LETTER = 0.118  # inches, of bold text in the size of names
STYLE = {'text.parse_math': False, 'font.size': 13, 'text.color': TEXT}  # a dollar sign is a dollar sign
# matplotlib's own font has no letters of East Asia
FONTS = [
    'DejaVu Sans',
    'Noto Sans CJK SC',
    'Noto Sans CJK JP',
    'Source Han Sans SC',
    'WenQuanYi Zen Hei',
    'PingFang SC',
]


def draw(result: Mapping[str, Any], sample: Sample, file: Path) -> None:
    """Draw a prediction to a PNG file of 1600 pixels of width.

    Args:
        result: of :meth:`Prediction.as_dict`, without an error.
        sample: the input as it was read, with its frames.
        file: the picture.
    """
    fonts = [name for name in FONTS if name in get_font_names()]
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings('ignore', 'Glyph', UserWarning)  # a letter that no font has is drawn as a box
        stack.enter_context(mpl.rc_context({**STYLE, 'font.family': fonts}))
        stream = stack.enter_context(open(stack.enter_context(written_whole(file)), 'wb'))
        canvas = FigureCanvasAgg(_figure(result, sample))
        canvas.print_png(stream, pil_kwargs=dict(compress_level=3))  # 6, the default, takes three times as long


def _figure(result: Mapping[str, Any], sample: Sample) -> Figure:
    top, alone = result['topk'], len(sample.frames) == 1
    bars = BAR * len(top)
    row, lefts = _row(sample.frames, (WIDTH - 2 * EDGE) * (0.42 if alone else 1), TALLEST_ALONE if alone else TALLEST)
    wide, tall = row.shape[1] / DPI, row.shape[0] / DPI
    below = 0.55 if sample.times else 0.3  # between frames and bars
    height = EDGE + TITLE + (max(tall, bars) if alone else tall + below + bars) + FOOT
    figure = Figure((WIDTH, height), DPI, facecolor='white')

    def axes(left: float, upper: float, width: float, high: float) -> Axes:
        return figure.add_axes((left / WIDTH, 1 - (upper + high) / height, width / WIDTH, high / height))

    def write(left: float, upper: float, text: str, **style: Any) -> Any:
        return figure.text(left / WIDTH, 1 - upper / height, text, va='top', **style)

    _title(write, top[0])
    upper = EDGE + TITLE
    frames = axes(EDGE, upper, wide, tall)
    frames.imshow(row, aspect='auto', interpolation='nearest')
    frames.set_axis_off()
    for left, seconds in zip(lefts, sample.times, strict=False):
        write(EDGE + left, upper + tall + 0.05, f'{seconds:.2f} s', size=10, color=FAINT)
    left = EDGE + (wide + 0.4 if alone else 0)
    upper += max(0.0, (tall - bars) / 2) if alone else tall + below
    _bars(axes(left, upper, WIDTH - EDGE - left, bars), top, WIDTH - EDGE - left)
    write(EDGE, height - 0.32, shortened(result['input'] or '', 110, end=True), color=FAINT, size=11)
    return figure


def _title(write: Any, best: Mapping[str, Any]) -> None:
    """Write the likeliest class and its share, as large as fits."""
    name, share = shortened(best['name'], 80), f'{best["probability"]:.1%}'
    size = min(24, 24 * 46 / (len(name) + len(share)))
    text = write(EDGE, EDGE + 0.1, name, size=size, weight='bold')
    end = text.get_window_extent(FigureCanvasAgg(text.figure).get_renderer()).x1 / DPI
    write(end + 0.16, EDGE + 0.1, share, size=size, color=STRONG)


def _row(frames: Sequence[np.ndarray], width: float, tallest: float) -> tuple[np.ndarray, list[float]]:
    """Return the frames side by side, at one height, and where each begins, in inches."""
    ratios = [frame.shape[1] / frame.shape[0] for frame in frames]
    tall = round(min(tallest * DPI, (width * DPI - GAP * (len(frames) - 1)) / sum(ratios)))
    parts, lefts, left = [], [], 0
    for frame, ratio in zip(frames, ratios, strict=True):
        wide = max(1, int(ratio * tall))
        how = cv2.INTER_AREA if frame.shape[0] > tall else cv2.INTER_CUBIC
        parts += [cv2.resize(frame, (wide, tall), interpolation=how), np.full((tall, GAP, 3), 255, np.uint8)]
        lefts.append(left / DPI)
        left += wide + GAP
    return np.concatenate(parts[:-1], axis=1), lefts


def _bars(axes: Axes, top: Sequence[Mapping[str, Any]], width: float) -> None:
    """Draw horizontal bars in so many inches, their names to the left and their shares behind them."""
    most = int(0.5 * width / LETTER)
    names = (LETTER * max(len(shortened(entry['name'], most)) for entry in top) + 0.2) / width  # of the width
    room = 1 - names - 0.75 / width
    for place, entry in enumerate(top):
        y, share, best = len(top) - 1 - place, entry['probability'], place == 0
        axes.barh(y, share * room, 0.62, left=names, color=STRONG if best else WEAK)
        style = dict(va='center_baseline', weight='bold' if best else 'normal')
        axes.text(names - 0.1 / width, y, shortened(entry['name'], most), ha='right', **style)
        axes.text(names + share * room + 0.08 / width, y, f'{share:.1%}', ha='left', **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(top) - 0.5)
    axes.set_axis_off()
