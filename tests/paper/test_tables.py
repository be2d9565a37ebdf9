"""Every table against the paper's own figures, and how our results come to stand beside them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from records import readme_counts, record

from tools import call
from vpetl_mm.engine.record import write_record
from vpetl_mm.errors import UserError
from vpetl_mm.paper.metafile import Ours, load_metafile
from vpetl_mm.paper.table_format import Table, render
from vpetl_mm.paper.table_layouts import LAYOUTS, layout
from vpetl_mm.paper.tables import Tables, as_printed, summary, trainable
from vpetl_mm.paper.vtab import extremes

REPO = Path(__file__).parents[2]
PAPER = REPO.parent / 'shared/paper/vpetl_tables.yaml'


# where the printed count and arithmetic part (docs/errata.md): table, group, printed
MISPRINTS = {
    ('table1', 'SSv2', 20.98),
    ('table3', 'SSv2', 1.35),
    *(('table3', 'HMDB51', m) for m in (6.40, 1.17, 2.74, 10.83)),
    *(('table4', 'without FC', m) for m in (2.74, 10.83)),
    ('table6', 'HMDB51', 7.63),
    ('table7', 'mean', 86.04),
}


@pytest.fixture(scope='module')
def entries():
    return load_metafile(REPO / 'configs/metafile.yml')


@pytest.fixture(scope='module')
def counts():
    return readme_counts()


def shown(tables: Tables, name: str) -> list[dict[str, str]]:
    """A table as its CSV says."""
    return list(csv.DictReader(io.StringIO(render([tables.table(name)], 'csv'))))


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's tables are not at hand")
@pytest.mark.parametrize('name', list(LAYOUTS))
def test_a_table_shows_the_papers_figures_in_its_order(name, entries, counts):
    printed = yaml.safe_load(PAPER.read_text())[name]
    rows = shown(Tables(entries, None, counts=counts), name)
    assert len(rows) == len(printed)
    groups = {'ssv2': 'SSv2', 'hmdb51': 'HMDB51', 'with_fc': 'with FC', 'without_fc': 'without FC'}
    groups |= {'cifar100': 'CIFAR-100', 'svhn': 'SVHN', 'food101': 'Food-101'}
    for row, paper in zip(rows, printed, strict=True):
        cells = {groups[k]: paper[k] for k in groups if k in paper} or {'SSv2': paper}
        for group, figures in cells.items():
            top1 = figures if isinstance(figures, float) else figures['top1']
            assert row[f'{group} top-1'] == f'{top1:.2f}' and row[f'{group} ours'] == 'not run'
            if not isinstance(figures, float):
                assert row[f'{group} M'] == f'{figures["params_m"]:.2f}'
        if name in ('table7', 'table8'):
            assert row['mean M'] == f'{paper["params_m"]:.2f}'
        labels = ' '.join(row.values()).lower().replace('-', '')
        for key in ('position', 'd_bottle', 'frames', 'scale', 'pretrain'):
            said = str(paper.get(key, '')).lower()
            assert said in labels or (name, key) == ('table5', 'd_bottle')


def test_a_count_that_rounds_to_another_figure_has_its_arithmetic_beside_it(entries, counts):
    tables = Tables(entries, None, counts=counts)
    off = set()
    for name, shape in LAYOUTS.items():
        for row in shown(tables, name):
            groups = ['mean'] if shape.params == 'mean5' else [c.heading for c in shape.columns]
            for group in groups if shape.params != 'unprinted' else ():
                ours, paper = int(row[f'{group} count'].replace(',', '')), float(row[f'{group} M'])
                if abs(ours / 1e6 - paper) > 0.00501:
                    off.add((name, group, paper))
                    assert re.search(r'\d,\d{3}', row['remark']) and f'{paper:.2f}' in row['remark'], row
                    known = {('table6', 7.63): 0.124, ('table7', 86.04): 0.0196}.get((name, paper), 0.0101)
                    assert abs(ours / 1e6 - paper) < known
    assert off == MISPRINTS


def test_the_counts_shown_are_the_configs(counts, entries):
    some = ['swin_bapat_ssv2_b128', 'swin_attnrpb_ssv2', 'vit_vpt_svhn_mae', 'vit_bapat_hmdb51_b32_videomae']
    assert trainable(some, REPO / 'configs') == {name: counts[name] for name in some}
    # what SPT trains is in a file of its own
    assert set(counts) == {n for n in extremes(e.name for e in entries) if '_spt' not in n}
    assert counts['swin_bapat_ssv2_b128'] == 6_379_438 and counts['vit_fc_cifar100_in21k'] == 76_900


def test_one_run_shows_its_figure_and_several_their_mean_and_spread(tmp_path, entries, counts):
    write_record(tmp_path / 'any/where', record('swin_fc_ssv2', top1=24.5))
    for seed, top1 in enumerate((50.0, 51.0, 52.0)):
        write_record(tmp_path / f'x/{seed}', record('swin_full_ssv2', seed, top1))
    rows = shown(Tables(entries, tmp_path, REPO / 'configs', counts=counts), 'table1')
    assert [r['SSv2 ours'] for r in rows[:3]] == ['51.00 ± 1.00', '24.50', 'not run']
    assert (
        shown(Tables(entries, tmp_path, REPO / 'configs', counts=counts), 'table5')[0]['SSv2 ours'] == '51.00 ± 1.00'
    )


def test_records_count_once_a_seed_and_only_as_printed(tmp_path, entries, counts):
    old, new = record('swin_fc_ssv2', top1=10.0), record('swin_fc_ssv2', top1=20.0, finished='2026-02-01')
    other = record('swin_fc_ssv2', 1, options={'holdout.fraction': 0.05})
    early = record('swin_fc_ssv2', 2, epoch=69)
    runs, out = as_printed([new, old, other, early], REPO / 'configs')
    assert runs == {'swin_fc_ssv2': [new]} and out == 2
    write_record(tmp_path / 'a', new)
    write_record(tmp_path / 'b', other)
    table = Tables(entries, tmp_path, REPO / 'configs', counts=counts).table('table1')
    assert '1 result(s) with other options, parameters or fewer epochs than the config are left out.' in table.notes
    assert not any('left out' in n for n in Tables(entries, None, counts=counts).table('table1').notes)


def test_the_metafiles_results_show_until_there_are_records(tmp_path, counts):
    entries = load_metafile(REPO / 'configs/metafile.yml')
    entry = next(e for e in entries if e.name == 'swin_fc_ssv2')
    entry.ours = Ours(24.0, 50.0, 20.0, 178_350, 1, 0.0)
    assert shown(Tables(entries, tmp_path, REPO / 'configs', counts=counts), 'table1')[1]['SSv2 ours'] == '24.00'
    write_record(tmp_path / 'a', record('swin_fc_ssv2', top1=25.0))
    assert shown(Tables(entries, tmp_path, REPO / 'configs', counts=counts), 'table1')[1]['SSv2 ours'] == '25.00'


def test_mean_and_spread():
    runs = [record('swin_fc_ssv2', s, t) for s, t in enumerate((1.0, 2.0, 6.0))]
    assert summary(runs) == Ours(3.0, 90.0, 2.0, 178_350, 3, 2.65)
    assert summary(runs[:1]).spread == 0


TABLE = Table(
    'T. A title', ['method', 'SSv2\nM', 'remark'], [['a', '1.00', 'why'], ['bcd', '10.00', '']], 1, ['Note.']
)


def test_text_is_aligned_and_remarks_are_below():
    assert render([TABLE]).splitlines() == [
        'T. A title',
        '---------------------',
        '         SSv2',
        'method      M  remark',
        '---------------------',
        'a        1.00     (1)',
        'bcd     10.00',
        '---------------------',
        '(1) why',
        'Note.',
    ]


def test_markdown_and_csv():
    assert render([TABLE], 'md').splitlines()[:5] == [
        '### T. A title',
        '',
        '| method | SSv2 M | remark |',
        '| --- | ---: | ---: |',
        '| a      |   1.00 |    (1) |',
    ]
    assert render([TABLE], 'md').splitlines()[-2:] == ['- (1) why', '- Note.']
    assert render([TABLE], 'csv') == 'table,method,SSv2 M,remark\nT,a,1.00,why\nT,bcd,10.00,'


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder with the configs at hand."""
    (tmp_path / 'configs').symlink_to(REPO / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tool_prints_and_writes(elsewhere, capsys):
    assert call('tables', 'table1') == 0
    printed = capsys.readouterr().out
    assert 'attn.softmax' in printed and '953,160' in printed and 'not run' in printed
    assert call('tables', 'table1', '--format', 'csv', '--out', 'sub/table1.csv') == 0
    rows = list(csv.reader((elsewhere / 'sub/table1.csv').read_text().splitlines()))
    assert len(rows) == 11 and {len(r) for r in rows} == {7}


def test_the_demos_table(elsewhere, capsys):
    assert call('tables', 'demo') == 2
    assert 'make demo' in capsys.readouterr().err
    row = dict(method='fc', params=520, share=0.002, top1=52.0, seconds=20.0, top1_per_seed=[52.0])
    (elsewhere / 'work_dirs/demo').mkdir(parents=True)
    (elsewhere / 'work_dirs/demo/table.json').write_text(json.dumps([row]))
    assert call('tables', 'demo', '--format', 'md') == 0
    assert '| fc     |       520 |' in capsys.readouterr().out
    (elsewhere / 'work_dirs/demo/table.json').write_text(json.dumps([dict(row, method='<b>|')]))
    assert call('tables', 'demo', '--format', 'md') == 0
    assert r'| &lt;b&gt;\| |' in capsys.readouterr().out
    (elsewhere / 'work_dirs/demo/table.json').write_text(json.dumps([row]))
    assert call('tables', 'demo', '--format', 'csv') == 0
    assert 'fc,520,0.2%,52.0,20' in capsys.readouterr().out
    wrongs = [dict(row, top1=7000)], [dict(row, method='fc\n# a heading')], [dict(row, method=['fc'])]
    wrongs += ([dict(row, seconds=10**400)],)
    for wrong in ('[]', '{}', *map(json.dumps, wrongs), '[' * 100_000 + ']' * 100_000):
        (elsewhere / 'work_dirs/demo/table.json').write_text(wrong)
        assert call('tables', 'demo') == 2
        assert 'corrupt' in capsys.readouterr().err
    (elsewhere / 'work_dirs/demo/table.json').write_text('[{"method": 1')
    assert call('tables', 'demo') == 2
    assert 'corrupt' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['tabel1'], "'table1'"),
        (['--dry-run'], '--run TABLE'),
        (['--run', 'table2'], 'table1'),
        (['table1', '--out', 'configs'], 'is a folder'),
        (['table1', '--out', '/proc/gone/table1.txt'], 'cannot be written'),
        (['figure1', '--out', '/proc/gone'], 'cannot be written'),
        (['table1', 'figure1', '--out', 'x'], '--out'),
        (['--run', 'table1', '--gpus', '3'], '--gpus 3'),
        (['--run', 'table1', '--seeds', '0'], '--seeds'),
        (['table1', '--work-dirs', 'nowhere'], 'nowhere does not exist'),
    ],
)
def test_wrong_requests_are_one_sentence(elsewhere, capsys, argv, said):
    assert call('tables', *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and said in error and error.count('\n') == 1


def test_a_corrupt_result_is_one_sentence(elsewhere, capsys):
    (elsewhere / 'work_dirs/run').mkdir(parents=True)
    (elsewhere / 'work_dirs/run/result.json').write_text('{"format": "vp')
    assert call('tables', 'table1') == 2
    error = capsys.readouterr().err
    assert 'work_dirs/run/result.json is corrupt' in error and error.count('\n') == 1


def test_a_table_that_does_not_exist():
    with pytest.raises(UserError, match="'table3'"):
        layout('table33')


def test_a_result_of_another_model_is_left_out(entries, counts, tmp_path):
    write_record(tmp_path / 'a', record('swin_fc_ssv2', top1=25.0, params=99))
    tables = Tables(entries, tmp_path, REPO / 'configs', counts=counts)
    assert shown(tables, 'table1')[1]['SSv2 ours'] == 'not run'
    assert any('1 result(s)' in note for note in tables.table('table1').notes)


def test_a_config_of_ones_own_disturbs_no_table(elsewhere, capsys):
    (elsewhere / 'configs').unlink()
    shutil.copytree(REPO / 'configs', elsewhere / 'configs')
    (elsewhere / 'configs/mine.py').write_text("_base_ = 'swin_bapat_ssv2_b128.py'\n")
    assert call('tables', 'table1') == 0
    assert 'attn.softmax' in capsys.readouterr().out
