"""The demo from end to end, in miniature, and its table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from vpetl_mm.commands.demo import ALL, CLIPS, CONTROLS, FURTHER, METHODS, Demo, drawn
from vpetl_mm.paper.demo_table import DemoRow, demo_table, read_demo_table
from vpetl_mm.paper.table_format import render

REPO = Path(__file__).parents[2]
SMALL = dict(source_train=32, source_test=8, target_train=32, target_val=8, target_test=16)
RANDOM = 'bapat_random_backbone'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with configs/ at hand, which is the current one."""
    folder = tmp_path_factory.mktemp('demo')
    (folder / 'configs').symlink_to(REPO / 'configs')
    with chdir(folder):
        yield folder


def demo(methods: list[str], seeds: int, parallel: int) -> list[DemoRow]:
    return Demo(Path('configs'), Path('data/demo'), Path('work_dirs/demo'), seeds, methods, SMALL, parallel).run()


@pytest.fixture(scope='module')
def rows(folder: Path) -> list[DemoRow]:
    """Of fc and a control, two runs at a time."""
    return demo(['fc', RANDOM], 1, 2)


def test_the_demo_in_miniature(folder, rows):
    table = json.loads((folder / 'work_dirs/demo/table.json').read_text())
    assert [r['method'] for r in table] == ['fc', RANDOM] == [r.method for r in rows]
    assert [(r['params'], round(r['share'], 4)) for r in table] == [(520, 0.0017), (27_272, 0.0894)]
    for row in table:
        assert row['seconds'] > 0
        for few in ('', 'few_'):
            assert row[f'{few}top1_per_seed'] == [row[f'{few}top1']] and 0 <= row[f'{few}top1'] <= 100
    written = (folder / 'work_dirs/demo/table.md').read_text(encoding='utf-8')
    assert r'| bapat\_random\_backbone |' in written and '32 clips and on 8 of them' in written
    assert render([read_demo_table(Path('work_dirs'))], 'md').partition('\nTop-1')[0].strip() in written
    assert (folder / 'work_dirs/demo/tradeoff.png').read_bytes()[:4] == b'\x89PNG'
    for method in ('fc', RANDOM):
        for run, indices in dict(seed_0=None, few_seed_0=8).items():
            record = json.loads((folder / f'work_dirs/demo/{method}/{run}/result.json').read_text())
            assert record['seed'] == 0 and record['samples'] == 16
            assert record['options'].get('train_dataloader.dataset.indices') == indices


def test_one_run_at_a_time_comes_to_the_same_figures(rows, capsys):
    both, alone = rows[0], demo(['fc'], 2, 1)[0]
    assert (alone.params, alone.share) == (both.params, both.share)
    for each, top1 in ((alone.top1_per_seed, both.top1), (alone.few_top1_per_seed, both.few_top1)):
        assert len(each) == 2 and each[0] == top1
    assert alone.top1 == pytest.approx(sum(alone.top1_per_seed) / 2)
    told = [line.split(':')[0].split() for line in capsys.readouterr().out.splitlines() if ': top-1' in line]
    assert told == [['turns,', 'source'], ['fc,', '32', 'clips'], ['fc,', '8', 'clips']]


def test_the_demo_compares_every_method_with_its_controls():
    needed = {'full', 'fc', 'lora', 'bitfit', 'adaptformer', 'patt', 'bapat', 'bapat_random_backbone', 'one_frame'}
    assert needed | {'sptlora', 'sptadapter'} == set(METHODS) and {*CONTROLS} < {*METHODS}
    assert {f'{m}{c}' for m in ('sptlora', 'sptadapter') for c in ('random', 'shuffled')} < set(ALL)
    assert all((REPO / f'configs/demo_{m}.py').exists() for m in (*ALL, *FURTHER, 'turns'))
    assert len(FURTHER) == 13 and not {*FURTHER} & {*ALL}, 'they take no time unless asked for'
    assert CLIPS['target_test'] >= 400


def test_what_the_table_alone_shows_is_drawn_where_there_is_nothing_else():
    fc, norm1, chance = (DemoRow(m, 520, 0.004, 50.0, 3.0, [50.0]) for m in ('fc', 'norm1', 'sptlorarandom'))
    assert drawn([norm1, fc, chance]) == [fc] and drawn([norm1, chance]) == [norm1, chance]


def test_the_table_shows_the_spread_of_several_seeds():
    one = DemoRow('fc', 520, 0.004, 50.0, 3.0, [50.0])
    three = DemoRow('bapat', 9000, 0.06, 60.0, 3.0, [59.0, 60.0, 61.0])
    assert [row[3] for row in demo_table([one]).rows] == ['50.0']
    assert [row[3] for row in demo_table([one, three]).rows] == ['50.0 ± 0.0', '60.0 ± 1.0']
    few = DemoRow('bapat', 9000, 0.06, 60.0, 3.0, [59.0, 61.0], 40.0, [37.0, 43.0])
    assert demo_table([few]).head[3:5] == ['top-1', 'few clips']
    assert demo_table([few]).rows[0][3:5] == ['60.0 ± 1.4', '40.0 ± 4.2']
