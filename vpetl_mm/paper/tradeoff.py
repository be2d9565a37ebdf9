"""Draw the demo's methods: the accuracy and the trainable parameters of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..figure import styled
from .demo_table import DemoRow

OURS, CONTROL, OTHER = '#c1272d', '#8a8a8a', '#1f4e79'


def draw_tradeoff(
    rows: Sequence[DemoRow], clips: tuple[int, int], controls: Mapping[str, str], chance: float, file: Path
) -> None:
    """Draw the demo's methods to ``file``, PNG or PDF by its suffix.

    Each method has a line, named at its left with the parameters that it trains, the fewest at the bottom; controls
    lie below all methods, under a rule. Filled marks stand for all clips, open ones for few; a bar is the standard
    deviation over the seeds.

    Args:
        rows: the methods.
        clips: the training clips in all and in the few.
        controls: methods that are controls, and what each is, in words.
        chance: the accuracy of guessing, in percent.
        file: where to.
    """
    methods = sorted((r for r in rows if r.method not in controls), key=lambda r: r.params)
    ordered = [*(r for r in rows if r.method in controls), *methods]
    with styled([file], size=(6.4, 1.1 + 0.27 * max(6, len(ordered)))) as (axes,):
        for place, row in enumerate(ordered):
            colour = _colour(row.method, controls)
            style = dict(fmt='o', markersize=5.5, capsize=2.5, linewidth=0.9, color=colour)
            axes.errorbar(row.top1, place + 0.14, xerr=row.spread or None, **style)
            if row.few_top1 is not None:
                few = dict(style, xerr=row.few_spread or None, markerfacecolor='white')
                axes.errorbar(row.few_top1, place - 0.14, **few)
        names = [f'{r.method.replace("_", " ")}   {r.params:,} ({100 * r.share:.1f}%)' for r in ordered]
        axes.set_yticks(range(len(ordered)), names)
        for tick, row in zip(axes.get_yticklabels(), ordered, strict=True):
            tick.set_color(_colour(row.method, controls))
        below = len(ordered) - len(methods)
        if below and methods:
            axes.axhline(below - 0.5, color=CONTROL, linewidth=0.8)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.axvline(chance, color=CONTROL, linewidth=0.8, linestyle=':')
        axes.text(-0.02, 1.01, 'method, parameters it trains', transform=axes.transAxes, ha='right', va='bottom')
        axes.set_xlabel('top-1 accuracy on the target (%)')
        _explain(axes, rows, clips, [controls[r.method] for r in ordered[:below]], chance)


def _colour(method: str, controls: Collection[str]) -> str:
    if method in controls:
        return CONTROL
    return OURS if method in ('patt', 'bapat') else OTHER


def _explain(
    axes: Any, rows: Sequence[DemoRow], clips: tuple[int, int], controls: Sequence[str], chance: float
) -> None:
    """Say above the axes what the marks, colours and lines are."""
    seeds = max(len(r.top1_per_seed) for r in rows)
    bar = f'mean and standard deviation of {seeds} seeds' if seeds > 1 else 'one seed'
    lines = [dict(marker='o', color='black', label=f'trained on {clips[0]} clips; {bar}')]
    if any(r.few_top1 is not None for r in rows):
        lines.append(dict(marker='o', markerfacecolor='white', color='black', label=f'trained on {clips[1]} of them'))
    lines.append(dict(marker='s', color=OURS, label='PATT, and BAPAT, which is PATT and AdaptFormer'))
    lines.append(dict(marker='s', color=OTHER, label='other methods'))
    if controls:
        lines.append(dict(marker='s', color=CONTROL, label=f'controls: {"; ".join(controls)}'))
    lines.append(dict(color=CONTROL, linestyle=':', label=f'chance, {chance:.1f}'))
    handles = [axes.plot([], [], **{'linestyle': '', 'markersize': 5.5, **line})[0] for line in lines]
    axes.figure.legend(handles=handles, loc='outside upper left', frameon=False, fontsize=8, labelspacing=0.25)
