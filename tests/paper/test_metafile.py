"""The metafile against the paper's list of experiments, and what is wrong with it in one sentence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from tools import call
from vpetl_mm.errors import UserError
from vpetl_mm.paper.metafile import Entry, Ours, check_complete, load_metafile, render_metafile, write_metafile
from vpetl_mm.paper.table_layouts import LAYOUTS

REPO = Path(__file__).parents[2]
METAFILE = REPO / 'configs/metafile.yml'
PAPER = REPO.parent / 'shared/paper'

SMALL = """\
# a comment
remarks:
  T1/fc: "a remark"
experiments:
- name: swin_fc_ssv2
  cells: [T1/fc, T3/fc/k400/f8]
  paper: {params_m: 0.18, params_are: own, top1: 24.13}
  ours: null
  where: null
- name: demo_fc
  cells: []
  paper: null
  ours: {top1: 50.5, top5: 99.0, mean_class: 50.1, params: 520, seeds: 2, spread: 0.5}
  where: "a machine"
"""


@pytest.fixture
def small(tmp_path) -> Path:
    """A metafile of two entries, and their configs beside it."""
    configs = tmp_path / 'configs'
    configs.mkdir()
    for name in ('swin_fc_ssv2', 'demo_fc'):
        (configs / f'{name}.py').write_text('')
    (configs / 'metafile.yml').write_text(SMALL)
    return configs / 'metafile.yml'


@pytest.mark.skipif(not PAPER.exists(), reason='the list of experiments is not at hand')
def test_the_metafile_holds_the_papers_experiments_figure_by_figure():
    entries = {e.name: e for e in load_metafile(METAFILE)}
    with open(PAPER / 'experiments.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert {n for n, e in entries.items() if e.cells} == {r['name'] for r in rows}
    for row in rows:
        entry = entries[row['name']]
        assert entry.cells == row['cells'].split(';') and entry.paper.top1 == float(row['top1'])
        kind, _, params = row['params_m'].rpartition(':')
        assert (entry.paper.params_are, entry.paper.params_m) == (kind or 'own', float(params))


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's tables are not at hand")
def test_a_table_that_prints_another_figure_keeps_it():
    entries = {e.name: e for e in load_metafile(METAFILE)}
    printed = yaml.safe_load((PAPER / 'vpetl_tables.yaml').read_text())['table5']
    for row in printed[:3]:
        for dataset in ('ssv2', 'hmdb51'):
            paper = next(
                e for e in entries.values() if f'T5/{row["method"]}' in e.cells and e.dataset == dataset
            ).paper
            assert paper.top1_in.get(f'T5/{row["method"]}', paper.top1) == row[dataset]


def test_every_cell_has_its_place_in_a_table_and_every_place_its_entry():
    cells = {(c, e.dataset) for e in load_metafile(METAFILE) for c in e.cells}
    places = {(li.cell + c.suffix, c.dataset) for t in LAYOUTS.values() for li in t.rows for c in t.columns}
    assert cells == places


def test_what_is_written_is_what_was_read(small):
    assert render_metafile(load_metafile(METAFILE)) in METAFILE.read_text(), 'written by its own hand'
    entries = load_metafile(small)
    assert [e.name for e in entries] == ['swin_fc_ssv2', 'demo_fc']
    assert entries[0].remarks == {'T1/fc': 'a remark'} and entries[1].ours.seeds == 2
    write_metafile(small, entries)
    assert small.read_text() == SMALL, 'comments and order stay'
    entries[0].ours = Ours(24.0, 50.0, 20.0, 178_350, 1, 0.0)
    entries[0].where = 'there: "ü"'
    write_metafile(small, entries)
    again = load_metafile(small)
    assert again == entries and small.read_text().startswith('# a comment\n')
    assert not list(small.parent.glob('*partial*'))


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('where: null', 'were: null', "Unknown key of swin_fc_ssv2.*'were'.*'where'"),
        ('seeds: 2', 'sedes: 2', "'sedes'"),
        ('spread: 0.5', 'spread: -1', 'spread.*0 to 100'),
        (', spread: 0.5', '', 'lacks spread'),
        ('top1: 24.13', 'top1: 124.13', 'top1 in paper of swin_fc_ssv2.*124.13'),
        ('params_are: own', 'params_are: mean', "'mean'"),
        ('name: demo_fc', 'name: swin_fc_ssv2', 'swin_fc_ssv2 has two entries'),
        ('name: demo_fc', 'name: swin_fcc_ssv2', 'outside the grammar'),
        ('name: demo_fc', 'name: demo_full', 'demo_full.py does not exist'),
        ('[T1/fc, T3/fc/k400/f8]', 'T1/fc', 'must be a list'),
        ('[T1/fc, T3/fc/k400/f8]', '[T1/fc, T1/fc]', 'T1/fc on ssv2 is answered by swin_fc_ssv2 and by'),
        ('T1/fc: "a remark"', 'T1/full: "a remark"', 'T1/full belongs to no entry'),
        ('where: "a machine"', 'where: 3', 'where of demo_fc'),
        ('where: "a machine"', r'where: "a\n\n# heading"', 'where of demo_fc'),
        ('cells: []', 'cells: [T5/x]', 'both cells and paper'),
        ('remarks:', 'remark:', "'remark'"),
        ('experiments:', 'experiments: {', 'not YAML'),
    ],
)
def test_what_is_wrong_is_one_sentence(small, old, new, said):
    small.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UserError, match=said) as error:
        load_metafile(small)
    assert '\n' not in str(error.value)


def test_two_entries_for_one_cell_of_one_dataset_are_refused(small):
    (small.parent / 'swin_full_ssv2.py').write_text('')
    extra = (
        SMALL.partition('experiments:\n')[2].partition('- name: demo')[0].replace('swin_fc_ssv2', 'swin_full_ssv2')
    )
    small.write_text(SMALL + extra)
    with pytest.raises(UserError, match='T1/fc on ssv2 is answered by swin_fc_ssv2 and by swin_full_ssv2'):
        load_metafile(small)


def test_a_config_without_an_entry_is_named(small):
    (small.parent / 'swin_full_ssv2.py').write_text('')
    entries = load_metafile(small)  # users may add theirs
    with pytest.raises(UserError, match=r'swin_full_ssv2\.py has no entry'):
        check_complete(entries, small.parent)
    (small.parent / 'swin_full_ssv2.py').rename(small.parent / 'mine.py')
    with pytest.raises(UserError, match="'mine' is outside the grammar"):
        check_complete(entries, small.parent)


def test_every_config_of_the_project_has_an_entry():
    check_complete(load_metafile(REPO / 'configs/metafile.yml'), REPO / 'configs')


def test_a_metafile_that_is_not_there():
    with pytest.raises(UserError, match='does not exist'):
        load_metafile('nowhere/metafile.yml')


def test_an_entry_of_its_own_needs_nothing_but_a_name():
    assert Entry('demo_fc').dataset == 'demo' and Entry('vit_fc_svhn_mae').dataset == 'svhn'


def renamed(configs: Path, old: str, new: str) -> None:
    """Give a config and its entry another name."""
    (configs / f'{old}.py').rename(configs / f'{new}.py')
    text = (configs / 'metafile.yml').read_text()
    (configs / 'metafile.yml').write_text(text.replace(f'- name: {old}\n', f'- name: {new}\n'))


@pytest.mark.parametrize(
    ('break_it', 'said'),
    [
        (lambda c: (c / 'swin_fc_ssv2.py').unlink(), 'swin_fc_ssv2 has no config'),
        (lambda c: renamed(c, 'swin_fc_ssv2', 'swin_fc_sssv2'), "'swin_fc_sssv2' is outside the grammar"),
    ],
)
def test_the_tool_says_it_and_exits_with_2(small, monkeypatch, capsys, break_it, said):
    monkeypatch.chdir(small.parents[1])
    break_it(small.parent)
    assert call('tables', 'table1') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and said in error and error.count('\n') == 1
