"""The demo from end to end, in miniature, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpetl_mm.commands.demo import ALL, CLIPS, FURTHER, METHODS, Demo
from vpetl_mm.paper.demo_table import DemoRow, demo_table, read_demo_table
from vpetl_mm.paper.table_format import render

REPO = Path(__file__).parents[2]


def test_the_demo_in_miniature(elsewhere, capsys):
    clips = dict(source_train=32, source_test=8, target_train=32, target_val=8, target_test=16)
    methods = ['fc', 'bapat', 'bapat_random_backbone']
    rows = Demo(Path('configs'), Path('data/demo'), Path('work_dirs/demo'), 2, methods, clips).run()
    table = json.loads((elsewhere / 'work_dirs/demo/table.json').read_text())
    assert [r['method'] for r in table] == methods == [r.method for r in rows]
    assert table[1]['params'] == table[2]['params'] > table[0]['params'] > 0
    for row in table:
        assert 0 <= row['top1'] <= 100 and row['seconds'] > 0 and len(row['top1_per_seed']) == 2
        assert row['top1'] == pytest.approx(sum(row['top1_per_seed']) / 2)
    shown = capsys.readouterr().out
    assert render([read_demo_table(Path('work_dirs'))]).partition('\nTop-1')[0] in shown
    assert r'| bapat\_random\_backbone |' in (elsewhere / 'work_dirs/demo/table.md').read_text(encoding='utf-8')
    assert (elsewhere / 'work_dirs/demo/tradeoff.png').read_bytes()[:4] == b'\x89PNG'
    for method in methods:
        for seed in (0, 1):
            assert list((elsewhere / f'work_dirs/demo/{method}/seed_{seed}').glob('adapter_*.pth')), (
                'a run of its own'
            )


def test_the_demo_compares_every_method_with_its_controls():
    needed = {'full', 'fc', 'lora', 'bitfit', 'adaptformer', 'patt', 'bapat', 'bapat_random_backbone', 'one_frame'}
    assert needed | {'sptlora', 'sptadapter'} == set(METHODS)
    assert {f'{m}{c}' for m in ('sptlora', 'sptadapter') for c in ('random', 'shuffled')} < set(ALL)
    assert all((REPO / f'configs/demo_{m}.py').exists() for m in (*ALL, *FURTHER, 'source'))
    assert len(FURTHER) == 13 and not {*FURTHER} & {*ALL}, 'they take no time unless asked for'
    assert CLIPS['target_test'] >= 400


def test_the_table_shows_the_spread_of_several_seeds():
    one = DemoRow('fc', 520, 0.004, 50.0, 3.0, [50.0])
    three = DemoRow('bapat', 9000, 0.06, 60.0, 3.0, [59.0, 60.0, 61.0])
    assert [row[3] for row in demo_table([one]).rows] == ['50.0']
    assert [row[3] for row in demo_table([one, three]).rows] == ['50.0 ± 0.0', '60.0 ± 1.0']
