"""LaTeX tables: exact small ones, hostile text, and what pdflatex makes of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from vpetl_mm.paper.latex import PACKAGES, in_latex
from vpetl_mm.paper.table_format import Table, render

HOSTILE = '\\input{x} 50% of $n_1^2$ & #1 ~ `a` "b" <c>|d* [e] --f \u2013 “g” é 字 ﬁ ² ₁ ½ \u2212 µ · \n\n\\\\'
GROUPED = Table(
    'T_1. A & b',
    ['method', 'M', 'SSv2\ntop-1', 'SSv2\nours', 'HMDB51\nours', 'remark'],
    [['[a]', '1,000', '50.99', '51.00 ± 1.00', 'not run', 'why'], ['*b', '-', '-', '60.00', '70.00', 'why']],
    1,
    ['Note: 5%.'],
)
PLAIN = Table('T', ['method', 'top-1', 'remark'], [['a', '1.00', '']], 1)


def test_a_grouped_table_has_its_remarks_and_notes_below_it():
    assert render([GROUPED], 'latex').splitlines() == [
        PACKAGES,
        '',
        r'\begin{table}',
        r'\centering',
        r'\caption{T\_1. A \& b}',
        r'\small',
        r'\begin{tabular}{lrrrr}',
        r'\toprule',
        r'&  & \multicolumn{2}{c}{SSv2} & \multicolumn{1}{c}{HMDB51} \\',
        r'\cmidrule(lr){3-4} \cmidrule(lr){5-5}',
        r'method & M & top-1 & ours & ours \\',
        r'\midrule',
        r'{[}a{]}\textsuperscript{1} & 1,000 & 50.99 & 51.00 $\pm$ 1.00 & -- \\',
        r'{*}b\textsuperscript{1} & -- & -- & 60.00 & 70.00 \\',
        r'\bottomrule',
        r'\end{tabular}',
        '',
        r'\smallskip',
        r'\begin{minipage}{\linewidth}\footnotesize',
        r'\textsuperscript{1} why\par',
        r'Note: 5\%.\par',
        r'\end{minipage}',
        r'\end{table}',
    ]


def test_tables_are_apart_and_a_plain_one_has_no_groups_and_no_notes():
    text = render([PLAIN, GROUPED], 'latex')
    assert text.count(r'\begin{table}') == 2 and text.startswith(f'{PACKAGES}\n\n{chr(92)}begin')
    plain = text.partition(r'\end{table}')[0]
    assert 'cmidrule' not in plain and 'minipage' not in plain and '\nmethod & top-1 \\\\\n' in plain


def test_text_of_data_files_is_set_as_it_is():
    assert in_latex(HOSTILE) == (
        r'\textbackslash{}input\{x\} 50\% of \$n\_1\textasciicircum{}2\$ \& \#1 \textasciitilde{} '
        r"\textasciigrave{}a\textasciigrave{} ''b'' \textless{}c\textgreater{}\textbar{}d{*} {[}e{]} -{}-f "
        r"\textendash{} ``g'' é ? fi \textsuperscript{2} $_1$ $1/2$ $-$ $\mu$ $\cdot$ "
        r'\textbackslash{}\textbackslash{}'
    )


@pytest.mark.parametrize(
    ('text', 'wanted'),
    [
        ('a---b', 'a-{}-{}-b'),
        ('10² x₁', r'10\textsuperscript{2} x$_1$'),
        ('\u22123', '$-$3'),
        ('1½', '1$1/2$'),
        ('①⅞', '??'),
    ],
)
def test_signs_keep_their_meaning(text, wanted):
    assert in_latex(text) == wanted


@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='LaTeX is not installed')
def test_pdflatex_sets_them_without_an_error(tmp_path):
    hostile = Table(HOSTILE, [HOSTILE, f'{HOSTILE.split(maxsplit=1)[0]}\n%', HOSTILE], [[HOSTILE] * 3], 1, [HOSTILE])
    body = render([GROUPED, PLAIN, hostile], 'latex')
    head = '\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n\\begin{document}\n'
    (tmp_path / 't.tex').write_text(f'{head}{body}\n\\end{{document}}\n', encoding='utf-8')
    command = ['pdflatex', '-halt-on-error', '-interaction=nonstopmode', '-no-shell-escape', 't.tex']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors='replace')
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / 't.pdf').is_file()
