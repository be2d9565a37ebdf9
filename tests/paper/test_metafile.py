"""The metafile against the paper's list of experiments, and what is wrong with it in one sentence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tools import refused
from vpetl_cli.shipped import experiments
from vpetl_mm.errors import UserError
from vpetl_mm.paper.metafile import Entry, Ours, SeedResult, load_metafile, write_metafile
from vpetl_mm.paper.table_layouts import LAYOUTS

REPO = Path(__file__).parents[2]
METAFILE = REPO / 'configs/metafile.yml'
EXPERIMENTS = REPO.parent / 'shared/paper/experiments.csv'

OURS = 'top1: 50.5, top5: 99.0, mean_class: 50.1, params: 520, seeds: 2, spread: 0.5'
SMALL = f"""\
# a comment
remarks:
  T1/fc: a remark
experiments:
- name: swin_fc_ssv2
  cells: [T1/fc, T3/fc/k400/f8]
  paper: {{params_m: 0.18, params_are: own, top1: 24.13}}
- name: demo_fc
  ours: {{{OURS}}}
  where: a machine
- name: vit_fc_vtab
  runs:
    vit_fc_vtabflowers102_mae:
      ours: {{{OURS}}}
      where: another
"""


@pytest.fixture
def small(tmp_path) -> Path:
    """A metafile of three entries, and their configs beside it."""
    configs = tmp_path / 'configs'
    (configs / 'vtab1k').mkdir(parents=True)
    for name in ('swin_fc_ssv2', 'demo_fc', 'vtab1k/vit_fc_vtab'):
        (configs / f'{name}.py').write_text('')
    (configs / 'metafile.yml').write_text(SMALL)
    return configs / 'metafile.yml'


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason='the list of experiments is not at hand')
def test_the_metafile_holds_the_papers_experiments_figure_by_figure():
    entries = {e.name: e for e in load_metafile(METAFILE)}
    with open(EXPERIMENTS, newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert {n for n, e in entries.items() if e.cells} == {r['name'] for r in rows}
    for row in rows:
        entry = entries[row['name']]
        assert entry.cells == row['cells'].split(';') and entry.paper.top1 == float(row['top1'])
        kind, _, params = row['params_m'].rpartition(':')
        assert (entry.paper.params_are, entry.paper.params_m) == (kind or 'own', float(params))


def test_every_cell_has_its_place_in_a_table_and_every_place_its_entry():
    cells = {(c, e.dataset) for e in load_metafile(METAFILE) for c in e.cells}
    places = {(li.cell + c.suffix, c.dataset) for t in LAYOUTS.values() for li in t.rows for c in t.columns}
    assert cells == places


def test_what_is_written_is_what_was_read(small):
    entries = load_metafile(small)
    by_name = {e.name: e for e in entries}
    assert [*by_name][:2] == ['swin_fc_ssv2', 'demo_fc'] and len(by_name) == 2 + 57, 'those of a leaf'
    assert entries[0].remarks == {'T1/fc': 'a remark'} and entries[1].ours.seeds == 2
    ran = by_name['vit_fc_vtabflowers102_mae']
    assert (ran.ours, ran.where) == (entries[1].ours, 'another') and by_name['vit_fc_vtabdtd_mae'].ours is None
    for config in METAFILE.parent.rglob('*.py'):
        (there := small.parent / config.relative_to(METAFILE.parent)).parent.mkdir(exist_ok=True)
        there.touch()
    for file in (small, METAFILE):
        text, entries = file.read_text(), load_metafile(file)
        small.write_text(text[: text.index('\nremarks:') + 1])
        write_metafile(small, entries)
        assert small.read_text() == text, 'comments and order stay'


@pytest.mark.parametrize('name', ['swin_fc_ssv2', 'vit_fc_vtabkitti_mae'])
def test_a_result_that_is_filled_in_is_read_again(small, name):
    entries = load_metafile(small)
    (entry,) = (e for e in entries if e.name == name)
    entry.ours, entry.where = Ours(24.0, 50.0, 20.0, 178_350, 1, 0.0), 'there: "ü"'
    write_metafile(small, entries)
    assert load_metafile(small) == entries and small.read_text().startswith('# a comment\n')
    assert not list(small.parent.glob('*partial*'))


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('where: a', 'were: a', "Unknown key of demo_fc.*'were'.*'where'"),
        ('seeds: 2', 'sedes: 2', "'sedes'"),
        ('spread: 0.5', 'spread: -1', 'spread.*0 to 100'),
        (', spread: 0.5', '', 'lacks spread'),
        ('top1: 24.13', 'top1: 124.13', 'top1 in paper of swin_fc_ssv2.*124.13'),
        ('params_are: own', 'params_are: mean', "'mean'"),
        ('name: demo_fc', 'name: swin_fc_ssv2', 'swin_fc_ssv2 has two entries'),
        ('name: demo_fc', 'name: swin_fcc_ssv2', 'outside the grammar'),
        ('name: demo_fc', 'name: demo_full', 'demo_full has no config in '),
        ('[T1/fc, T3/fc/k400/f8]', 'T1/fc', 'must be a list'),
        ('[T1/fc, T3/fc/k400/f8]', '[T1/fc, T1/fc]', 'T1/fc on ssv2 is answered by swin_fc_ssv2 and by'),
        ('T1/fc: a', 'T1/full: a', 'T1/full belongs to no entry'),
        ('where: a machine', 'where: 3', 'where of demo_fc'),
        ('where: a machine', r'where: "a\n\n# heading"', 'where of demo_fc'),
        ('name: demo_fc', 'name: demo_fc\n  cells: [T5/x]', 'both cells and paper'),
        ('  runs:', '  runs: []\n  cells:', "Unknown key of vit_fc_vtab in.*'cells'"),
        ('vtabflowers102_mae:', 'vtabflower102_mae:', "'vtabflower102' is not a dataset; .*'vtabflowers102'"),
        ('vtabflowers102_mae:', 'vtabflowers102_mea:', "'mea' is not a pre-training; .*'mae'"),
        ('      where: another', '      cells: []', "Unknown key of vit_fc_vtabflowers102_mae.*'cells'"),
        ('      where: another', '      where: 3', 'where of vit_fc_vtabflowers102_mae'),
        ('name: vit_fc_vtab', 'name: vit_full_vtab', 'vit_full_vtabcifar_in21k has no config in'),
        ('remarks:', 'remark:', "'remark'"),
        ('experiments:', 'experiments: {', 'not YAML'),
        ('where: a machine', 'where: 2026-13-45', 'not YAML'),
        ('seeds: 2', 'seeds: 0', 'seeds in ours of demo_fc.* at least 1'),
        ('seeds: 2', 'seeds: 1.5', 'seeds in ours of demo_fc.* whole number'),
        ('seeds: 2', 'seeds: 2, hours: .inf', 'hours in ours of demo_fc'),
        ('where: a machine', 'by_seed: {0: null}', 'seed 0 in by_seed of demo_fc.* must be a mapping'),
        ('where: a machine', 'search: {.inf: 1}', 'search of demo_fc.* numbers above 0'),
        ('where: a machine', 'apart: {entires: {1: 1}}', "'entires'.*'entries'"),
    ],
)
def test_what_is_wrong_is_one_sentence(small, old, new, said):
    small.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UserError, match=said) as error:
        load_metafile(small)
    assert '\n' not in str(error.value)


def test_what_could_not_be_read_again_is_not_written(small):
    before, entries = small.read_text(), load_metafile(small)
    entries[0].by_seed = {-1: SeedResult(24.0, 50.0, 20.0, 178_350)}
    with pytest.raises(UserError, match=r'by_seed of swin_fc_ssv2.*whole numbers from 0'):
        write_metafile(small, entries)
    assert small.read_text() == before and not list(small.parent.glob('*partial*'))


def test_two_entries_for_one_cell_of_one_dataset_are_refused(small):
    (small.parent / 'swin_full_ssv2.py').write_text('')
    load_metafile(small)  # users may add configs that have no entry
    entry = SMALL[SMALL.index('- name: swin') : SMALL.index('- name: demo')]
    small.write_text(SMALL + entry.replace('swin_fc_ssv2', 'swin_full_ssv2'))
    with pytest.raises(UserError, match='T1/fc on ssv2 is answered by swin_fc_ssv2 and by swin_full_ssv2'):
        load_metafile(small)


def test_every_config_of_the_project_has_an_entry():
    names = [e.name for e in load_metafile(METAFILE)]
    assert {*names} == {*experiments(METAFILE.parent)} and len(names) == 187 + 13 + 14 + 71 + 22 * 57


def test_an_entry_of_its_own_needs_nothing_but_a_name(small):
    assert Entry('demo_fc').dataset == 'demo' and Entry('vit_fc_svhn_mae').dataset == 'svhn'
    small.write_text('experiments:\n- {name: demo_fc, cells: [], paper: null, ours: null, where: null}\n')
    assert load_metafile(small) == [Entry('demo_fc')]


def test_the_tool_says_it_and_exits_with_2(small, monkeypatch, capsys):
    monkeypatch.chdir(small.parents[1])
    (small.parent / 'swin_fc_ssv2.py').unlink()
    said = refused(capsys, 'tables', 'table1')
    assert 'swin_fc_ssv2 has no config in configs' in said and said.count('\n') == 1
    with pytest.raises(UserError, match='does not exist'):
        load_metafile('nowhere/metafile.yml')
