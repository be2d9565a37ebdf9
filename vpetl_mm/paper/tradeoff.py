"""Accuracy against trainable parameters, in the manner of V-PETL's Figure 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Point(Protocol):
    """What is drawn: a method's name, trainable parameters, top-1 in percent, and its spread over seeds."""

    method: str
    params: int
    top1: float
    spread: float


OURS, CONTROL, OTHER = '#c1272d', '#8a8a8a', '#1f4e79'
# where labels stand whose neighbours are close: (x, y) in points from the point, and the side they are anchored at
PLACES = {
    'full': ((-7, 4), 'right'),
    'lora': ((-8, -4), 'right'),
    'patt': ((-6, 6), 'right'),
    'adaptformer': ((8, -4), 'left'),
    'sptadapter': ((-8, -10), 'right'),
    'bapat_random_backbone': ((0, -15), 'center'),
}
MARKERS = {
    'full': 's', 'fc': 'v', 'lora': 'D', 'bitfit': 'P', 'adaptformer': '^', 'patt': 'o', 'bapat': '*',
    'prefix': 'X', 'prompt': 'h', 'vpt': 'h', 'sptlora': '*', 'sptadapter': 'o',
}  # fmt: skip


@contextmanager
def styled(files: Sequence[Path], panels: int = 1) -> Iterator[list[Any]]:
    """Axes in the manner of all figures here, side by side; on leaving, the figure is written.

    Args:
        files: where to, each PNG or PDF by its name, written whole or not at all.
        panels: how many axes.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.rc_context({'font.size': 9, 'font.family': 'serif', 'axes.linewidth': 0.8, 'pdf.fonttype': 42}):
        figure, grid = plt.subplots(1, panels, figsize=(4.6 * panels, 3.2), layout='constrained', squeeze=False)
        try:
            yield list(grid[0])
            for axes in grid[0]:
                axes.grid(True, which='major', linewidth=0.4, alpha=0.5)
                axes.spines[['top', 'right']].set_visible(False)
            for file in files:
                partial = file.with_name(f'partial_{file.name}')
                figure.savefig(partial, dpi=300)
                partial.replace(file)
        finally:
            plt.close(figure)


def draw_tradeoff(points: Sequence[Point], file: Path) -> None:
    """Draw to ``file`` (PNG or PDF, by its name).

    Args:
        points: one a method.
        file: written whole or not at all.
    """
    with styled([file]) as (axes,):
        for point in points:
            control = point.method.endswith('random_backbone')
            ours = point.method.startswith(('patt', 'bapat')) and not control
            colour = CONTROL if control else OURS if ours else OTHER
            marker = MARKERS.get(point.method, 'x')
            axes.errorbar(
                point.params,
                point.top1,
                yerr=point.spread or None,
                fmt=marker,
                color=colour,
                markersize=11 if marker == '*' else 6,
                capsize=2.5,
                linewidth=0.9,
            )
            label = point.method.replace('_', ' ')
            offset, side = PLACES.get(point.method, ((7, 4), 'left'))
            axes.annotate(
                label, (point.params, point.top1), xytext=offset, textcoords='offset points', ha=side, color=colour
            )
        axes.set_xscale('log')
        axes.margins(x=0.12, y=0.14)
        axes.set_xlabel('trainable parameters')
        axes.set_ylabel('top-1 accuracy on the target (%)')
