"""The rows of the demo's table, one a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import stdev


@dataclass
class DemoRow:
    """One method's line: top-1 in percent and seconds (training and testing), the means over the seeds."""

    method: str
    params: int
    share: float
    top1: float
    seconds: float
    top1_per_seed: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        """The standard deviation of top-1 over the seeds."""
        return stdev(self.top1_per_seed) if len(self.top1_per_seed) > 1 else 0.0


def demo_cells(rows: Sequence[DemoRow]) -> list[list[str]]:
    """The table's cells as text, the headings first."""
    spread = any(len(r.top1_per_seed) > 1 for r in rows)
    return [
        ['method', 'trainable', 'share', 'top-1', 'seconds'],
        *(
            [
                r.method,
                f'{r.params:,}',
                f'{100 * r.share:.1f}%',
                f'{r.top1:.1f} ± {r.spread:.1f}' if spread else f'{r.top1:.1f}',
                f'{r.seconds:.0f}',
            ]
            for r in rows
        ),
    ]


def demo_table(rows: Sequence[DemoRow]) -> str:
    """The table in Markdown, aligned for the terminal as well."""
    lines = demo_cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def text(values: Sequence[str], pad: Callable[[str, int], str] = str.rjust) -> str:
        return '| ' + ' | '.join([values[0].ljust(widths[0]), *map(pad, values[1:], widths[1:])]) + ' |'

    rule = '|' + '|'.join(['-' * (widths[0] + 2), *('-' * (w + 1) + ':' for w in widths[1:])]) + '|'
    return '\n'.join([text(lines[0]), rule, *map(text, lines[1:])])
