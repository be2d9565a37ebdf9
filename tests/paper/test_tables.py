"""Every table against the paper's own figures, and our results beside them."""

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

from tools import call, refused
from vpetl_mm.engine.record import write_record
from vpetl_mm.paper.metafile import Ours, load_metafile, mean_of
from vpetl_mm.paper.table_format import Table, render
from vpetl_mm.paper.table_layouts import LAYOUTS
from vpetl_mm.paper.tables import Tables, as_printed, result_of, trainable
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


def shown(entries, work_dirs: Path | None, name: str) -> list[dict[str, str]]:
    """A table's rows, from its CSV."""
    text = render([tables(entries, work_dirs).table(name)], 'csv')
    return list(csv.DictReader(io.StringIO(text)))


def tables(entries, work_dirs: Path | None = None) -> Tables:
    return Tables(entries, work_dirs, REPO / 'configs', readme_counts())


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's tables are not at hand")
@pytest.mark.parametrize('name', list(LAYOUTS))
def test_a_table_shows_the_papers_figures_in_its_order(name, entries):
    printed = yaml.safe_load(PAPER.read_text())[name]
    rows = shown(entries, None, name)
    assert len(rows) == len(printed)
    groups = {'ssv2': 'SSv2', 'hmdb51': 'HMDB51', 'with_fc': 'with FC', 'without_fc': 'without FC'}
    groups |= {'cifar100': 'CIFAR-100', 'svhn': 'SVHN', 'food101': 'Food-101'}
    for row, paper in zip(rows, printed, strict=True):
        cells = {groups[k]: paper[k] for k in groups if k in paper} or {'SSv2': paper}
        for group, figures in cells.items():
            top1 = figures if isinstance(figures, float) else figures['top1']
            assert row[f'{group} top-1'] == f'{top1:.2f}' and row[f'{group} ours'] == ''
            if not isinstance(figures, float):
                assert row[f'{group} M'] == f'{figures["params_m"]:.2f}'
        if name in ('table7', 'table8'):
            assert row['mean M'] == f'{paper["params_m"]:.2f}'
        labels = ' '.join(row.values()).lower().replace('-', '')
        for key in ('position', 'd_bottle', 'frames', 'scale', 'pretrain'):
            said = str(paper.get(key, '')).lower()
            assert said in labels or (name, key) == ('table5', 'd_bottle')


def test_a_count_that_rounds_to_another_figure_has_its_arithmetic_beside_it(entries):
    off = set()
    for name, shape in LAYOUTS.items():
        for row in shown(entries, None, name):
            groups = ['mean'] if shape.params == 'mean5' else [c.heading for c in shape.columns]
            for group in groups if shape.params != 'unprinted' else ():
                ours, paper = int(row[f'{group} count']), float(row[f'{group} M'])
                if abs(ours / 1e6 - paper) > 0.00501:
                    off.add((name, group, paper))
                    assert re.search(r'\d,\d{3}', row['remark']) and f'{paper:.2f}' in row['remark'], row
                    known = {('table6', 7.63): 0.124, ('table7', 86.04): 0.0196}.get((name, paper), 0.0101)
                    assert abs(ours / 1e6 - paper) < known
    assert off == MISPRINTS


def test_the_counts_shown_are_the_configs(entries):
    counts = readme_counts()
    some = ['swin_bapat_ssv2_b128', 'swin_attnrpb_ssv2', 'vit_vpt_svhn_mae', 'vit_bapat_hmdb51_b32_videomae']
    assert trainable(some, REPO / 'configs') == {name: counts[name] for name in some}
    # what SPT trains is in a file of its own
    assert set(counts) == {n for n in extremes(e.name for e in entries) if '_spt' not in n}
    assert counts['swin_bapat_ssv2_b128'] == 6_379_438 and counts['vit_fc_cifar100_in21k'] == 76_900


def test_one_run_shows_its_figure_and_several_their_mean_and_spread(tmp_path, entries):
    write_record(tmp_path / 'any/where', record('swin_fc_ssv2', top1=24.5))
    for seed, top1 in enumerate((50.0, 51.0, 52.0)):
        write_record(tmp_path / f'x/{seed}', record('swin_full_ssv2', seed, top1))
    rows = shown(entries, tmp_path, 'table1')[:3]
    assert [(r['SSv2 ours'], r['SSv2 ours spread']) for r in rows] == [('51.00', '1.00'), ('24.50', ''), ('', '')]
    table5 = tables(entries, tmp_path).table('table5')
    assert '51.00 ± 1.00' in table5.rows[0] and 'not run' in table5.rows[1]


def test_records_count_once_a_seed_and_only_as_printed(tmp_path, entries):
    old, new = record('swin_fc_ssv2', top1=10.0), record('swin_fc_ssv2', top1=20.0, finished='2026-02-01')
    other = record('swin_fc_ssv2', 1, options={'holdout.fraction': 0.05})
    early, resized = record('swin_fc_ssv2', 2, epoch=69), record('swin_fc_ssv2', 3, params=99)
    runs, out = as_printed([new, old, other, early, resized], REPO / 'configs')
    assert runs == {'swin_fc_ssv2': [new]} and out == 3
    write_record(tmp_path / 'b', other)
    note = '1 result(s) with other options, parameters or fewer epochs than the config are left out.'
    assert note in tables(entries, tmp_path).table('table1').notes
    assert note not in tables(entries).table('table1').notes


def test_the_metafiles_results_show_until_there_are_records(tmp_path):
    entries = load_metafile(REPO / 'configs/metafile.yml')
    entry = next(e for e in entries if e.name == 'swin_fc_ssv2')
    entry.ours = Ours(24.0, 50.0, 20.0, 178_350, 1, 0.0)
    assert shown(entries, tmp_path, 'table1')[1]['SSv2 ours'] == '24.00'
    write_record(tmp_path / 'a', record('swin_fc_ssv2', top1=25.0))
    assert shown(entries, tmp_path, 'table1')[1]['SSv2 ours'] == '25.00'


def test_mean_and_spread():
    runs = [result_of(record('swin_fc_ssv2', s, t)) for s, t in enumerate((1.0, 2.0, 6.0))]
    assert mean_of(runs) == Ours(3.0, 90.0, 2.0, 178_350, 3, 2.65)
    assert mean_of(runs[:1]).spread == 0


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


def test_csv_has_plain_numbers_the_spread_in_a_column_of_its_own_and_nothing_where_nothing_is():
    rows = [
        ['a', '-', '6,379,438', '99.8%', '19 of 19', '51.00 ± 1.00', ''],
        ['b', '8', '0.2%', '-', '75 at 1%', 'not run', '1,5'],
    ]
    table = Table('T', ['method', 'd', 'n', 'kept', 'done', 'SSv2\nours', 'remark'], rows, 2)
    assert render([table, TABLE], 'csv').splitlines() == [
        'table,method,d,n,kept %,done,SSv2 ours,SSv2 ours spread,remark',
        'T,a,,6379438,99.8,19,51.00,1.00,',
        'T,b,8,0.2%,,75 at 1%,,,"1,5"',
        *render([TABLE], 'csv').splitlines(),
    ]


def test_without_remarks_their_column_is_left_out():
    plain = Table('T', ['method', 'M', 'remark'], [['a', '1', '']], 1)
    assert render([plain]).splitlines()[2:5] == ['method  M', '---------', 'a       1']
    assert '| method | M |' in render([plain], 'md')


def test_the_tool_prints_and_writes(elsewhere, capsys):
    assert call('tables', 'table1') == 0
    printed = capsys.readouterr().out
    assert 'attn.softmax' in printed and '953,160' in printed and 'not run' in printed
    assert call('tables', 'table1', '--format', 'csv', '--out', 'sub/table1.csv') == 0
    rows = list(csv.reader((elsewhere / 'sub/table1.csv').read_text().splitlines()))
    assert len(rows) == 11 and {len(r) for r in rows} == {8}


def test_the_demos_table(elsewhere, capsys):
    assert 'make demo' in refused(capsys, 'tables', 'demo')
    row = dict(method='fc', params=520, share=0.002, top1=52.0, seconds=20.0, top1_per_seed=[52.0])
    file = elsewhere / 'work_dirs/demo/table.json'
    file.parent.mkdir(parents=True)
    for method, fmt, line in (
        ('fc', 'md', '| fc     |       520 |'),
        ('<b>|', 'md', r'| &lt;b&gt;\| |'),
        ('fc', 'csv', 'fc,520,0.2,52.0,20'),
        ('50%_{x}', 'latex', r'50\%\_\{x\} & 520 & 0.2\% & 52.0 & 20 \\'),
    ):
        file.write_text(json.dumps([dict(row, method=method)]))
        assert call('tables', 'demo', '--format', fmt) == 0
        assert line in capsys.readouterr().out
    wrongs = [dict(top1=7000), dict(method='fc\n# a heading'), dict(method=['fc']), dict(seconds=10**400)]
    texts = [json.dumps([dict(row, **wrong)]) for wrong in wrongs]
    for text in ('[]', '{}', '[{"method": 1', '[' * 100_000 + ']' * 100_000, *texts):
        file.write_text(text)
        assert 'corrupt' in refused(capsys, 'tables', 'demo')


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['tabel1'], "'table1'"),
        (['--dry-run'], '--run TABLE'),
        (['--run', 'table33'], "'table3'"),
        (['table1', '--out', 'configs'], 'is a folder'),
        (['table1', '--out', '/proc/gone/table1.txt'], 'cannot be written'),
        (['figure1', '--out', '/proc/gone'], 'cannot be written'),
        (['table1', 'figure1', '--out', 'x'], '--out'),
        (['--run', 'table1', '--gpus', '3'], '--gpus 3'),
        (['--run', 'table1', '--seeds', '0'], '--seeds'),
        (['table1', '--work-dirs', 'nowhere'], 'nowhere does not exist'),
        (['table1', '--work-dirs', 'corrupt'], 'corrupt/run/result.json is corrupt'),
    ],
)
def test_wrong_requests_are_one_sentence(elsewhere, capsys, argv, said):
    (elsewhere / 'corrupt/run').mkdir(parents=True)
    (elsewhere / 'corrupt/run/result.json').write_text('{"format": "vp')
    error = refused(capsys, 'tables', *argv)
    assert said in error and error.count('\n') == 1


def test_a_config_of_ones_own_disturbs_no_table(elsewhere, capsys):
    (elsewhere / 'configs').unlink()
    shutil.copytree(REPO / 'configs', elsewhere / 'configs')
    (elsewhere / 'configs/mine.py').write_text("_base_ = 'swin_bapat_ssv2_b128.py'\n")
    assert call('tables', 'table1') == 0
    assert 'attn.softmax' in capsys.readouterr().out
