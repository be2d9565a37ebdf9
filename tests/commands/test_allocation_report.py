"""The table and the figure of an allocation; the figure is read off its axes."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pytest
from chosen import by_hand
from tiny import HOSTS

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.allocation_report import check_plot, describe_allocation, plot_allocation
from vpetl_mm.spt.allocation import Allocation


def allocation(zero: bool = False) -> Allocation:
    """Unit number n has a sensitivity of n."""
    found = by_hand(build_model(HOSTS['vit'].config()).backbone)
    rows = [replace(r, sensitivity=0.0 if zero else float(n)) for n, r in enumerate(found.rows)]
    return replace(found, rows=tuple(rows))


@pytest.fixture
def axes(monkeypatch):
    """The axes of what is drawn, as they were when they were written."""
    seen = []
    real = matplotlib.figure.Figure.savefig

    def noted(self, *args, **kwargs):
        seen.extend(self.axes)
        return real(self, *args, **dict(kwargs, dpi=40))

    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', noted)
    return seen


def test_the_share_of_each_block(axes, tmp_path):
    found = allocation()
    plot_allocation(found, tmp_path / 'new/figure.png')
    assert (tmp_path / 'new/figure.png').read_bytes()[:4] == b'\x89PNG'
    total = sum(r.sensitivity for r in found.rows)
    shares = [
        100 * sum(r.sensitivity for r in found.rows if r.name.startswith(f'layers.{b}.')) / total for b in (0, 1)
    ]
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes[0].patches}
    assert list(bars) == pytest.approx([0, 1]) and list(bars.values()) == pytest.approx(shares)
    assert sum(shares) < 100, 'the last norm is in no block'


def test_the_mean_of_each_kind_of_matrix_and_what_is_tuned(axes, tmp_path):
    found = allocation()
    plot_allocation(found, tmp_path / 'figure.pdf')
    assert (tmp_path / 'figure.pdf').read_bytes()[:4] == b'%PDF'
    right = axes[1]
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ['q', 'k', 'v', 'proj', 'fc1', 'fc2'] and right.get_yscale() == 'log'
    lines = {line.get_label(): line for line in right.lines}
    for kind in labels:
        rows = [r for r in found.rows if r.kind == kind]
        expected = [r.sensitivity / np.prod(r.shape) for r in rows]
        assert lines[kind].get_ydata() == pytest.approx(expected) and list(lines[kind].get_xdata()) == [0, 1]
    dots = {(x, round(y, 9)) for ln in right.lines if ln.get_marker() == 'o' for x, y in ln.get_xydata()}
    tuned = [r for r in found.rows if len(r.shape) == 2 and r.choice != 'none']
    assert dots == {(r.block, round(r.sensitivity / np.prod(r.shape), 9)) for r in tuned}


def test_nothing_but_zeros_is_drawn_as_well(axes, tmp_path):
    plot_allocation(allocation(zero=True), tmp_path / 'figure.svg')
    assert (tmp_path / 'figure.svg').is_file() and axes[1].get_yscale() == 'linear'


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'folder.png').mkdir()
    for file in ('figure.txt', 'figure', 'folder.png'):
        with pytest.raises(UserError, match=r'\.png, \.pdf or \.svg'):
            check_plot(tmp_path / file)
    with pytest.raises(UserError):
        plot_allocation(allocation(), tmp_path / 'figure.txt')
    assert [p.name for p in tmp_path.iterdir()] == ['folder.png']


def test_the_summary_counts_by_kind():
    found = replace(allocation(), control='random', class_token=True, params=allocation().params + 16)
    text = describe_allocation(found)
    assert text.startswith(f'SPT-LoRA of rank 2: {found.params:,} parameters for a budget of {found.budget:,}')
    assert 'CONTROL: random' in text.splitlines()[0]
    total, counted = sum(r.sensitivity for r in found.rows), 0
    table = {line.split()[0]: line for line in text.splitlines()[3:]}
    for kind in ('q', 'k', 'v', 'proj', 'fc1', 'fc2', 'norm', 'bias'):
        rows = [r for r in found.rows if r.kind == kind]
        whole = sum(r.choice in ('structured', 'whole') for r in rows)
        entries = [r.params for r in rows if r.choice == 'sparse']
        single = f'{sum(entries):,} in {len(entries)}' if entries else '-'
        share = 100 * sum(r.sensitivity for r in rows) / total
        said = ' '.join(table[kind].split())
        assert said == f'{kind} {whole} of {len(rows)} {single} {sum(r.params for r in rows):,} {share:.1f}%'
        counted += sum(r.params for r in rows)
    assert table['class'].split() == ['class', 'token', '16'] and counted + 16 == found.params
    plain = describe_allocation(allocation())
    assert 'class token' not in plain and 'CONTROL' not in plain
