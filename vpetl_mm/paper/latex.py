"""Format tables as LaTeX, with booktabs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .table_format import Table

PACKAGES = '% needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} for accents'
WIDE = 8  # columns; a wider table is set smaller
# what LaTeX reads as its own; "[" and "*" would belong to the "\\" in front of them, and "--" is a dash
SPECIAL = {c: f'\\{c}' for c in '{}$&#_%'}
SPECIAL |= {
    '\\': '\\textbackslash{}',
    '~': '\\textasciitilde{}',
    '^': '\\textasciicircum{}',
    '`': '\\textasciigrave{}',
}
SPECIAL |= {'<': '\\textless{}', '>': '\\textgreater{}', '|': '\\textbar{}', '"': "''", '[': '{[}', ']': '{]}'}
SPECIAL |= {'*': '{*}', '±': '$\\pm$', '\u00d7': '$\\times$', '≈': '$\\approx$', '→': '$\\to$', '…': '\\dots{}'}
SPECIAL |= {
    '\u2013': '\\textendash{}',
    '\u2014': '\\textemdash{}',
    '\u2018': '`',
    '\u2019': "'",
    '“': '``',
    '”': "''",
}
SPECIAL |= {'\u2212': '$-$', '½': '$1/2$', '¼': '$1/4$', '¾': '$3/4$', 'µ': '$\\mu$', '·': '$\\cdot$'}
SUPERSCRIPTS, SUBSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹', '₀₁₂₃₄₅₆₇₈₉'
SPECIAL |= {c: f'\\textsuperscript{{{i}}}' for i, c in enumerate(SUPERSCRIPTS)}
SPECIAL |= {c: f'$_{i}$' for i, c in enumerate(SUBSCRIPTS)}
LAST_LETTER = '\u017f'  # of Latin Extended-A; LaTeX stops at most letters behind it


def latex(tables: Sequence[Table]) -> str:
    """Return a ``table`` environment for each table, and a comment with the packages that they need."""
    return '\n\n'.join([PACKAGES, *map(_table, tables)])


def in_latex(text: str) -> str:
    """Return a line of text so that LaTeX sets it as it is; characters that it cannot set become "?"."""
    return re.sub('-(?=-)', '-{}', ''.join(map(_character, ' '.join(text.split()))))


def _character(character: str) -> str:
    if (known := SPECIAL.get(character)) is not None:
        return known
    if character.isascii():
        return character if character.isprintable() else '?'
    if character.isalpha() and character <= LAST_LETTER:
        return character
    # letters alone: of another number, such as a fraction in a circle, the parts would be a different one
    plain = unicodedata.normalize('NFKD', character) if character.isalpha() else ''
    return ''.join(c for c in plain if c.isascii() and c.isalpha()) or '?'


def _table(table: Table) -> str:
    remarks = list(dict.fromkeys(row[-1] for row in table.rows if row[-1]))
    marks = {remark: f'\\textsuperscript{{{i}}}' for i, remark in enumerate(remarks, 1)}
    columns = len(table.head) - 1  # remarks stand below
    lines = ['\\begin{table}', '\\centering', f'\\caption{{{in_latex(table.title)}}}']
    lines += ['\\scriptsize\\setlength{\\tabcolsep}{4pt}' if columns > WIDE else '\\small']
    lines += [f'\\begin{{tabular}}{{{"l" * table.labels}{"r" * (columns - table.labels)}}}', '\\toprule']
    lines += [*_heads(table.head[:-1]), '\\midrule']
    for row in table.rows:
        cells = [_cell(cell) for cell in row[:-1]]
        cells[0] += marks.get(row[-1], '')
        lines.append(' & '.join(cells) + ' \\\\')
    lines += ['\\bottomrule', '\\end{tabular}']
    notes = [f'{mark} {in_latex(remark)}' for remark, mark in marks.items()] + list(map(in_latex, table.notes))
    if notes:
        lines += ['', '\\smallskip', '\\begin{minipage}{\\linewidth}\\footnotesize']
        lines += [*(f'{note}\\par' for note in notes), '\\end{minipage}']
    return '\n'.join([*lines, '\\end{table}'])


def _cell(text: str) -> str:
    """Return a cell's text; what is missing is a dash."""
    return '--' if text in ('-', 'not run') else in_latex(text)


def _heads(heads: Sequence[str]) -> list[str]:
    """Return the rows of headings: groups, each over a rule, if there are any, and columns."""
    groups, _, last = zip(*(h.rpartition('\n') for h in heads), strict=True)
    names = f'{" & ".join(map(in_latex, last))} \\\\'
    if not any(groups):
        return [names]
    cells, rules, start = [], [], 1
    for group, members in groupby(groups):
        end = start + len([*members]) - 1
        if group:
            cells.append(f'\\multicolumn{{{end - start + 1}}}{{c}}{{{in_latex(group)}}}')
            rules.append(f'\\cmidrule(lr){{{start}-{end}}}')
        else:
            cells += [''] * (end - start + 1)
        start = end + 1
    return [f'{" & ".join(cells)} \\\\'.lstrip(), ' '.join(rules), names]
