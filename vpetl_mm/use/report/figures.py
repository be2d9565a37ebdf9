"""Figures of a page, as SVG that takes the page's colours, and as PNG."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from .curves import Curves
from .numbers import Calibration, Share

# colours that stand for the page's own: '#0101NN' becomes var(--name)
COLOURS = {'ink': '#010101', 'muted': '#010102', 'line': '#010103', 'good': '#010104', 'bad': '#010105'}
STYLE = {
    'font.size': 9,
    'text.color': COLOURS['ink'],
    'axes.labelcolor': COLOURS['muted'],
    'axes.edgecolor': COLOURS['line'],
    'axes.spines.top': False,
    'axes.spines.right': False,
    'xtick.color': COLOURS['line'],
    'ytick.color': COLOURS['line'],
    'xtick.labelcolor': COLOURS['muted'],
    'ytick.labelcolor': COLOURS['muted'],
    'axes.linewidth': 0.8,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'vpetl_mm',
    'figure.constrained_layout.use': True,
}
FEW = 40  # points of a curve, which are marked
GOOD, BAD = (59, 118, 196), (211, 98, 38)  # of the matrix, in light and in dark


class Drawing:
    """An SVG to be put into a page, drawn by matplotlib."""

    svg = Markup('')


@contextmanager
def drawing(rows: int = 1, size: tuple[float, float] = (4.4, 2.6), **options: Any) -> Iterator[tuple[Drawing, Any]]:
    """Yield a figure and its axes; on leaving, the figure has its SVG."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        canvas, axes = plt.subplots(rows, figsize=size, **options)
        figure = Drawing()
        try:
            yield figure, axes
            stream = io.StringIO()
            canvas.savefig(stream, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
        finally:
            plt.close(canvas)
        figure.svg = _themed(stream.getvalue())


def _themed(svg: str) -> Markup:
    """Return matplotlib's SVG without its size, its head and its fonts, in the page's colours.

    No text of a stranger is in it: the figures here hold numbers and words of this file.
    """
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', svg, count=1)
    svg = svg.replace('<svg', '<svg aria-hidden="true"', 1)  # the page says in words what it shows
    svg = re.sub(r' id="(?!m|p)[^"]*"', '', svg)  # twice on a page; those of markers and clips are hashes
    svg = re.sub(r'font: ([\d.]+)px [^;\"]*', r'font-size: \1px', svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f'var(--{name})')
    return Markup(svg)


def sorted_accuracies(shares: Sequence[Share]) -> Markup:
    """Draw the accuracies of many classes from the lowest to the highest, with their intervals."""
    shares = sorted(shares, key=lambda s: s.percent)
    places = np.arange(1, len(shares) + 1)
    with drawing() as (figure, axes):
        low, high = [s.low for s in shares], [s.high for s in shares]
        axes.fill_between(places, low, high, step='mid', color=COLOURS['good'], alpha=0.25, linewidth=0)
        axes.step(places, [s.percent for s in shares], where='mid', color=COLOURS['good'], linewidth=1.4)
        axes.set(xlabel='classes, from the lowest accuracy', ylabel='accuracy (%)', ylim=(0, 100))
        axes.set_xlim(0.5, len(shares) + 0.5)
    return figure.svg


def reliability(found: Calibration) -> Markup:
    """Draw accuracy against confidence, with the counts of the bins below."""
    edges = np.linspace(0, 100, len(found.counts) + 1)
    width, there = edges[1] - edges[0], found.counts > 0
    middle = (edges[:-1] + width / 2)[there]
    accuracy, confidence = 100 * found.accuracy[there], 100 * found.confidence[there]
    with drawing(2, (4.4, 3.8), sharex=True, height_ratios=(3, 1)) as (figure, (above, below)):
        above.plot([0, 100], [0, 100], '--', color=COLOURS['muted'], linewidth=0.9)
        above.bar(middle, accuracy, 0.86 * width, color=COLOURS['good'], alpha=0.35)
        above.vlines(confidence, accuracy, confidence, color=COLOURS['bad'], linewidth=1.2)
        above.plot(confidence, accuracy, 'o', color=COLOURS['good'], markersize=3.5)
        above.set(ylabel='accuracy (%)', xlim=(0, 100), ylim=(0, 100))
        below.bar(middle, found.counts[there], 0.86 * width, color=COLOURS['muted'], alpha=0.6)
        below.set(xlabel='confidence (%)', ylabel='samples')
    return figure.svg


def curve_drawings(curves: Curves) -> list[tuple[str, Markup]]:
    """Draw the loss, top-1 on what was held out and the learning rate by epoch, as far as logged, with titles."""
    titles = dict(loss='Training loss', top1='Top-1 on what was held out (%)', lr='Learning rate')
    found = []
    for (name, title), colour in zip(titles.items(), ('bad', 'good', 'muted'), strict=True):
        if not getattr(curves, name):
            continue
        epochs, values = curves.thinned(name)
        with drawing(size=(3.5, 2.0)) as (figure, axes):
            mark = 'o' if len(epochs) < FEW else ''
            axes.plot(epochs, values, color=COLOURS[colour], linewidth=1.3, marker=mark, markersize=3)
            axes.grid(axis='y', color=COLOURS['line'], linewidth=0.5)
            axes.set(xlabel='epoch', xlim=(0, None), ylim=(0, None) if name == 'lr' else (None, None))
        found.append((title, figure.svg))
    return found


def matrix_picture(counts: np.ndarray, order: Sequence[int]) -> str:
    """Draw confusions, a pixel a cell, as the address of a PNG: rows in percent, what is right in another colour."""
    ordered = counts[np.ix_(order, order)]
    rates = ordered / np.maximum(ordered.sum(1, keepdims=True), 1)
    pixels = np.zeros((*rates.shape, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(len(rates), dtype=bool)[..., None], GOOD, BAD)
    pixels[..., 3] = np.rint(255 * np.sqrt(rates))  # the root: a few percent can be seen
    return address(Image.fromarray(pixels, 'RGBA'), 'PNG')


def address(image: Image.Image, kind: str, **options: Any) -> str:
    """Return an image as a data address."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}'
