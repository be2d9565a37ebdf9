"""Draw accuracy against trainable parameters, in the style of V-PETL's Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..figure import styled
from .demo_table import DemoRow

OURS, CONTROL, OTHER = '#c1272d', '#8a8a8a', '#1f4e79'
# labels whose neighbours are close: the offset (x, y) in points, and the side they are anchored at
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


def draw_tradeoff(rows: Sequence[DemoRow], file: Path) -> None:
    """Draw the demo's methods to ``file``, PNG or PDF by its suffix."""
    with styled([file]) as (axes,):
        for row in rows:
            control = row.method.endswith('random_backbone')
            ours = row.method.startswith(('patt', 'bapat')) and not control
            colour = CONTROL if control else OURS if ours else OTHER
            marker = MARKERS.get(row.method, 'x')
            style = dict(markersize=11 if marker == '*' else 6, capsize=2.5, linewidth=0.9, color=colour)
            axes.errorbar(row.params, row.top1, yerr=row.spread or None, fmt=marker, **style)
            offset, side = PLACES.get(row.method, ((7, 4), 'left'))
            place = dict(xytext=offset, textcoords='offset points', ha=side, color=colour)
            axes.annotate(row.method.replace('_', ' '), (row.params, row.top1), **place)
        axes.set_xscale('log')
        axes.margins(x=0.12, y=0.14)
        axes.set_xlabel('trainable parameters')
        axes.set_ylabel('top-1 accuracy on the target (%)')
