"""Figures 1 and 4, from the metafile, the records and the logs of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from records import record

from tools import call, refused
from vpetl_mm.engine.record import write_record
from vpetl_mm.errors import UserError
from vpetl_mm.paper.figures import figure1, figure4, legend, read_curves
from vpetl_mm.paper.metafile import load_metafile
from vpetl_mm.paper.names import parse_name
from vpetl_mm.paper.tables import Tables

REPO = Path(__file__).parents[2]


def log(run: Path, start: str, values: dict[int, float], config: str = 'swin_fc_ssv2') -> Path:
    """A run's log as mmengine writes it: training lines by step, validation lines by epoch."""
    file = run / start / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    lines = [dict(lr=0.1, loss=2.0, epoch=1, iter=10, step=10)]
    lines += [{'acc/top1': v, 'acc/top5': 90.0, 'acc/mean_class': 1.0, 'step': e} for e, v in values.items()]
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (run / f'{config}.py').write_text('')
    return file


def are_figures(files: list[Path], stem: str) -> bool:
    heads = {f.name: f.read_bytes()[:4] for f in files}
    return heads == {f'{stem}.png': b'\x89PNG', f'{stem}.pdf': b'%PDF'}


def drawn(monkeypatch) -> list:
    """A list that the figures drawn from now on are added to."""
    from matplotlib.figure import Figure

    seen, real = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *a, **k: (seen.append(self), real(self, *a, **k))[1])
    return seen


def test_figure_1_shows_the_papers_points_and_ours(tmp_path, monkeypatch):
    seen = drawn(monkeypatch)
    write_record(tmp_path / 'run', record('swin_bapat_ssv2_b128', top1=52.5, params=6_379_438, total=10**8))
    tables = Tables(load_metafile(REPO / 'configs/metafile.yml'), tmp_path)
    assert are_figures(figure1(tables, tmp_path / 'figures'), 'figure1')
    points = [(x, y) for line in seen[0].axes[0].lines for x, y in zip(*line.get_data(), strict=True)]
    assert {(87.82, 50.99), (0.18, 24.13), (0.95, 38.34), (11.0, 53.98), (9.45, 52.71)} <= set(points)
    assert (6.379438, 52.5) in points
    assert len([p for p in points if p[1] != 52.5]) == 14, 'the rows of Table 3 at K400 and 8 frames'


def test_a_run_that_was_resumed_is_one_curve_and_the_later_log_counts(tmp_path):
    log(tmp_path / 'a/seed_0', '20260101_000000', {1: 10.0, 2: 20.0, 3: 30.0})
    log(tmp_path / 'a/seed_0', '20260102_000000', {3: 31.0, 4: 40.0})
    log(tmp_path / 'b', '20260101_000000', {}, 'swin_full_ssv2')
    (tmp_path / 'b/vis_data').mkdir()
    os.mkfifo(tmp_path / 'b/vis_data/scalars.json')  # reading it would never end
    ((config, curve),) = read_curves(tmp_path)
    assert config == 'swin_fc_ssv2' and [*curve.items()] == [(1, 10.0), (2, 20.0), (3, 31.0), (4, 40.0)]


def test_a_log_cut_off_in_its_last_line_is_read(tmp_path):
    file = log(tmp_path / 'a', '20260101_000000', {1: 10.0})
    file.write_text(file.read_text() + '{"acc/top1": 2')
    assert read_curves(tmp_path) == [('swin_fc_ssv2', {1: 10.0})]


@pytest.mark.parametrize(
    'line',
    [
        '{"acc/top1": 2',
        '{"acc/top1": "x", "step": 1}',
        '{"acc/top1": 50.0}',
        '{"acc/top1": 900, "step": 1}',
        '{"acc/top1": NaN, "step": 1}',
        '\udcff',
    ],
)
def test_a_corrupt_log_is_named(tmp_path, line):
    file = log(tmp_path / 'w/x', '20260101_000000', {1: 15.0}, 'swin_bapat_ssv2_b128_f16')
    file.write_text(f'{line}\n' + file.read_text(), errors='surrogateescape')
    with pytest.raises(UserError, match=r'scalars\.json is corrupt in line 1'):
        figure4(tmp_path / 'w', tmp_path / 'out')


def test_figure_4_has_a_line_per_run_and_a_panel_per_data_set(tmp_path, monkeypatch):
    seen = drawn(monkeypatch)
    for seed in (0, 1):
        log(tmp_path / f'w/fc/{seed}', '20260101_000000', {1: 10.0 + seed, 2: 20.0})
    log(tmp_path / 'w/x', '20260101_000000', {1: 15.0, 2: 35.0}, 'swin_bapat_ssv2_b128_f16')
    log(tmp_path / 'w/y', '20260101_000000', {1: 50.0}, 'swin_bapat_hmdb51_b128')
    log(tmp_path / 'w/z', '20260101_000000', {1: 70.0}, 'my_own')
    assert are_figures(figure4(tmp_path / 'w', tmp_path / 'out'), 'figure4')
    ssv2, hmdb51 = sorted(seen[0].axes, key=lambda a: -len(a.lines))
    assert (len(ssv2.lines), len(hmdb51.lines)) == (3, 1) and 'HMDB51' in hmdb51.get_ylabel()
    assert [t.get_text() for t in ssv2.get_legend().get_texts()] == ['BAPAT F16 S0.8 B128 K400', 'fc F8 K400']
    assert len({line.get_color() for line in ssv2.lines}) == 2, 'seeds share a colour'


def test_the_legend_reads_as_in_the_paper():
    assert legend(parse_name('swin_bapat_ssv2_b256_k600')) == 'BAPAT F8 S0.8 B256 K600'
    assert legend(parse_name('swin_lora_ssv2_r16')) == 'lora F8 R16 K400'
    assert legend(parse_name('demo_one_frame')) == 'one frame'


def test_the_tool_draws_or_explains_in_one_sentence(elsewhere, capsys):
    error = refused(capsys, 'tables', 'figure4')
    assert '--cfg-options holdout.fraction=0.05' in error and error.count('\n') == 1
    assert call('tables', 'figure1', '--out', 'figures') == 0
    assert capsys.readouterr().out == 'figures/figure1.png, figures/figure1.pdf\n'
    (elsewhere / 'file').touch()
    assert 'is a folder, and file is a file' in refused(capsys, 'tables', 'figure1', '--out', 'file')
