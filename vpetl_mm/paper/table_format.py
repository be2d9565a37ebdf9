"""Format tables for the terminal, as Markdown, as CSV with plain numbers, and as LaTeX."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .latex import latex

MISSING = ('-', 'not run', 'by budget')
NUMBER = re.compile(r'(-?[\d,]+(?:\.\d+)?)(?:%| of \d+)?')  # a share and a part of a total are numbers too
SHARE = re.compile(r'-?[\d,]+(?:\.\d+)?%')


@dataclass
class Table:
    """A table of text.

    Args:
        title: what it shows.
        head: the headings; the last column holds remarks, shown below the table by number.
        rows: as wide as ``head``.
        labels: how many of the first columns are labels, aligned to the left.
        notes: sentences below the table.
        spread: the last line of the headings whose cells may have a spread, which CSV has in a column of its own.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    labels: int
    notes: list[str] = field(default_factory=list)
    spread: str = 'ours'


def render(tables: Sequence[Table], fmt: str = 'text') -> str:
    """Format tables, one of :data:`FORMATS`."""
    return FORMATS[fmt](tables)


def _numbered(table: Table) -> tuple[list[str], list[list[str]], list[str]]:
    """Return head, rows and notes, each remark as a number and a note; without remarks the column goes."""
    remarks = list(dict.fromkeys(row[-1] for row in table.rows if row[-1]))
    numbers = {text: f'({i})' for i, text in enumerate(remarks, 1)}
    rows = [[*row[:-1], numbers.get(row[-1], '')] for row in table.rows]
    notes = [*(f'{number} {text}' for text, number in numbers.items()), *table.notes]
    return (table.head, rows, notes) if remarks else (table.head[:-1], [row[:-1] for row in rows], notes)


def _aligned(table: Table, lines: Sequence[Sequence[str]], join: Callable[[list[str]], str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [str.ljust if i < table.labels else str.rjust for i in range(len(widths))]
    return [join([pad(text, w) for pad, text, w in zip(pads, line, widths, strict=True)]) for line in lines]


def _text(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        head, rows, notes = _numbered(table)
        group, _, last = zip(*(h.rpartition('\n') for h in head), strict=True)
        heads = [group, last] if any(group) else [last]
        lines = _aligned(table, [*heads, *rows], lambda cells: '  '.join(cells).rstrip())
        rule = '-' * max(map(len, lines))
        parts.append('\n'.join([table.title, rule, *lines[: len(heads)], rule, *lines[len(heads) :], rule, *notes]))
    return '\n\n'.join(parts)


def _markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        head, rows, notes = _numbered(table)
        rows = [list(map(escaped, row)) for row in rows]
        lines = _aligned(table, [_one_line(head), *rows], lambda cells: f'| {" | ".join(cells)} |')
        rule = '|' + '|'.join([' --- '] * table.labels + [' ---: '] * (len(head) - table.labels)) + '|'
        notes = [f'- {note}' for note in notes]
        parts.append('\n'.join([f'### {table.title}', '', lines[0], rule, *lines[1:], '', *notes]))
    return '\n\n'.join(parts)


def escaped(text: str) -> str:
    """Escape a line from a data file so that Markdown shows it as it is."""
    return re.sub(r'([\\`*_\[\]|])', r'\\\1', html.escape(text, quote=False))


def _csv(tables: Sequence[Table]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    for table in tables:
        head, *rows = zip(*(column for i in range(len(table.head)) for column in _plain(table, i)), strict=True)
        writer.writerow(['table', *head])
        writer.writerows([table.title.partition('.')[0], *row] for row in rows)
    return stream.getvalue().rstrip('\n')


def _plain(table: Table, i: int) -> list[list[str]]:
    """Return a column with plain numbers, its heading first, and behind it the column of the spread if it has one."""
    (head,), cells = _one_line(table.head[i : i + 1]), [row[i] for row in table.rows]
    if i < table.labels or i == len(table.head) - 1:  # labels and remarks
        return [[head, *('' if cell == '-' else cell for cell in cells)]]
    parts = [cell.partition(' ± ') for cell in cells]
    filled = [value for value, *_ in parts if value not in MISSING]
    percent = ' %' * (bool(filled) and all(SHARE.fullmatch(value) for value in filled))
    columns = [[head + percent, *(_number(value, bool(percent)) for value, *_ in parts)]]
    if table.head[i].rpartition('\n')[2] == table.spread or any(spread for *_, spread in parts):
        columns.append([f'{head} spread', *(spread for *_, spread in parts)])
    return columns


def _number(cell: str, share: bool) -> str:
    """Return a number without separators and total, nothing where it is missing; else the text.

    The percent sign goes where the whole column has ``share``s, as its heading says.
    """
    if cell in MISSING:
        return ''
    if cell.endswith('%') and not share:
        return cell
    match = NUMBER.fullmatch(cell)
    return match[1].replace(',', '') if match else cell


def _one_line(head: Sequence[str]) -> list[str]:
    return [h.replace('\n', ' ') for h in head]


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = dict(text=_text, md=_markdown, csv=_csv, latex=latex)
