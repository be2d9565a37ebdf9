"""Tables as text: aligned for the terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

FORMATS = ('text', 'md', 'csv')


@dataclass
class Table:
    """A table of text, ready to be written.

    Args:
        title: what it shows.
        head: the headings; the last column is the remarks'.
        rows: as wide as ``head``.
        labels: how many of the first columns are labels, set to the left.
        notes: sentences below it.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    labels: int
    notes: list[str] = field(default_factory=list)


def render(tables: Sequence[Table], fmt: str = 'text') -> str:
    """Tables as text: ``'text'`` for the terminal, ``'md'`` or ``'csv'``."""
    return {'text': _text, 'md': _markdown, 'csv': _csv}[fmt](tables)


def _numbered(table: Table) -> tuple[list[list[str]], list[str]]:
    """The rows with their remarks as numbers, and the numbered remarks with the notes."""
    remarks = list(dict.fromkeys(row[-1] for row in table.rows if row[-1]))
    rows = [[*row[:-1], f'({remarks.index(row[-1]) + 1})' if row[-1] else ''] for row in table.rows]
    return rows, [*(f'({i}) {text}' for i, text in enumerate(remarks, 1)), *table.notes]


def _aligned(table: Table, lines: Sequence[Sequence[str]], join: Callable[[list[str]], str]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    pads = [str.ljust if i < table.labels else str.rjust for i in range(len(widths))]
    return [join([pad(text, w) for pad, text, w in zip(pads, line, widths, strict=True)]) for line in lines]


def _text(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        rows, notes = _numbered(table)
        split = [h.rpartition('\n') for h in table.head]
        heads = [[first for first, _, _ in split], [last for _, _, last in split]]
        lines = _aligned(table, [*heads, *rows], lambda cells: '  '.join(cells).rstrip())
        rule = '-' * max(map(len, lines))
        parts.append('\n'.join([table.title, rule, *lines[:2], rule, *lines[2:], rule, *notes]))
    return '\n\n'.join(parts)


def _markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        rows, notes = _numbered(table)
        rows = [list(map(escaped, row)) for row in rows]
        lines = _aligned(table, [_one_line(table.head), *rows], lambda cells: f'| {" | ".join(cells)} |')
        rule = '|' + '|'.join([' --- '] * table.labels + [' ---: '] * (len(table.head) - table.labels)) + '|'
        parts.append('\n'.join([f'### {table.title}', '', lines[0], rule, *lines[1:], '', *_list(notes)]))
    return '\n\n'.join(parts)


def escaped(text: str) -> str:
    """A line out of a data file, written so that Markdown shows it as it is."""
    return re.sub(r'([\\`*_\[\]|])', r'\\\1', html.escape(text, quote=False))


def _list(notes: Sequence[str]) -> list[str]:
    return [f'- {note}' for note in notes]


def _csv(tables: Sequence[Table]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    for table in tables:
        writer.writerow(['table', *_one_line(table.head)])
        writer.writerows([table.title.partition('.')[0], *row] for row in table.rows)
    return stream.getvalue().rstrip('\n')


def _one_line(head: Sequence[str]) -> list[str]:
    return [h.replace('\n', ' ') for h in head]
