"""VTAB-1k: group means and their mean, what SPT's rows count, the figure, and the campaign that fills them."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import record
from small_vtab import CLASSES, FURTHER, NATURAL, PRETRAINED, SIZES, SPECIALIZED, STRUCTURED, WITHOUT_HEAD, name_of
from test_figures import are_figures, drawn

from tools import call
from vpetl_mm.engine.record import changed_options, write_record
from vpetl_mm.paper.figures import figure1c
from vpetl_mm.paper.metafile import Ours, mean_of
from vpetl_mm.paper.tables import Tables, counts_as_printed, result_of
from vpetl_mm.paper.vtab import EXPERIMENTS, extremes, group_means, row_names, vtab_table

CONFIGS = Path(__file__).parents[2] / 'configs'
SPT, LORA = 'vit_sptlora_vtabkitti_in21k', 'vit_lora_vtabkitti_r8_in21k'
SPT_FILE = 'model.petl.spt.file'
COUNTS = {name_of(m, t): n + 769 * c for m, n in WITHOUT_HEAD.items() for t, c in CLASSES.items()}


def runs_of(method: str, base: int, skip: tuple[str, ...] = ()) -> dict[str, Ours]:
    """Natural tasks at 80, 81, ...; specialized ones at 82, 83, ...; structured ones at 50, 52, ..."""
    top1 = {t: 80.0 + i for i, t in enumerate(NATURAL)} | {t: 82.0 + i for i, t in enumerate(SPECIALIZED)}
    top1 |= {t: 50.0 + 2 * i for i, t in enumerate(STRUCTURED)}
    return {
        name_of(method, t): Ours(score, 99.0, score, base + 769 * CLASSES[t], 1, 0.0)
        for t, score in top1.items()
        if t not in skip
    }


def rows_of(ours: dict[str, Ours], counts: dict[str, int] | None = None) -> dict[tuple[str, str], list[str]]:
    table = vtab_table(ours, counts or {})
    return {(row[0], row[1]): row[2:] for row in table.rows}


def test_the_experiments_are_the_456():
    assert {*EXPERIMENTS} == {name_of(m, t, p) for m in SIZES for t in CLASSES for p in PRETRAINED}
    assert list(row_names('lora', 'mae').values()) == [name_of('lora', t, 'mae') for t in CLASSES]
    assert Tables([], None).names('vtab') == list(EXPERIMENTS) and len(EXPERIMENTS) == 456


def test_the_mean_is_that_of_the_three_group_means():
    # (80 + 81 + ... + 86) / 7 = 83; (82 + 83 + 84 + 85) / 4 = 83.5; (50 + 52 + ... + 64) / 8 = 57
    row = rows_of(runs_of('lora', 294_912))['LoRA', 'IN-21K']
    assert row[2:7] == ['83.00', '83.50', '57.00', '74.50', '19 of 19'], 'over the tasks it would be 72.16'


def test_a_group_mean_needs_all_its_tasks():
    row = rows_of(runs_of('lora', 294_912, skip=('kitti', 'dmlab')))['LoRA', 'IN-21K']
    assert row[2:7] == ['83.00', '83.50', 'not run', 'not run', '17 of 19']
    assert rows_of({})['LoRA', 'IN-21K'][2:7] == ['not run'] * 4 + ['0 of 19']


def test_the_papers_claims_stand_beside_the_supervised_rows_alone():
    table = vtab_table({}, {})
    assert 'read off its figure' in ' '.join(table.notes) and 'mean of the three group means' in ' '.join(table.notes)
    claims = {tuple(row[:2]): row[9] for row in table.rows if row[9] != '-'}
    assert claims == {
        ('SPT-LoRA', 'IN-21K'): '75.9 at 0.31%, 76.4 at 0.63%',
        ('SPT-Adapter', 'IN-21K'): '76.2 at 0.37%, 76.4 at 0.44%',
        ('LoRA', 'IN-21K'): '75',
        ('AdaptFormer', 'IN-21K'): '74.7',
        ('VPT', 'IN-21K'): '72',
    }


def test_trainable_parameters_are_those_of_the_literature_without_the_head():
    rows = rows_of({}, COUNTS)
    assert {m: row[0] for (m, p), row in rows.items() if p == 'IN-21K'} == {
        **{'Full tuning': '85.80', 'FC': '0.00', 'BitFit': '0.10', 'VPT': '0.46', 'AdaptFormer': '0.16'},
        **{'LoRA': '0.29', 'SPT-LoRA': 'by budget', 'SPT-Adapter': 'by budget'},
    }


def test_the_parameters_of_spt_are_those_of_its_runs():
    ours = runs_of('sptlora', 400_000)
    ours[name_of('sptlora', 'cifar')] = Ours(80.0, 99.0, 80.0, 210_000 + 76_900, 1, 0.0)
    assert rows_of(ours)['SPT-LoRA', 'IN-21K'][:2] == ['0.39', '0.45%']
    assert group_means('sptlora', 'in21k', ours, {}).params == (18 * 400_000 + 210_000) / 19


def test_the_methods_of_further_papers_have_a_table_of_their_own():
    names = [name_of(m, t, p) for m in FURTHER for p in PRETRAINED for t in CLASSES]
    counts = {name_of(m, t): n + 769 * c for m, (_, n) in FURTHER.items() for t, c in CLASSES.items()}
    tables = Tables([], None, CONFIGS, counts)
    assert tables.names('vtab_further') == names
    tables.ours = runs_of('mona', FURTHER['mona'][1])
    table = tables.table('vtab_further')
    rows = {tuple(row[:2]): row[2:] for row in table.rows}
    assert rows['Mona', 'IN-21K'] == ['2.68', '3.13%', '83.00', '83.50', '57.00', '74.50', '19 of 19', '']
    assert rows['FacT-TK', 'IN-21K'][:2] == ['0.09', '0.10%'] and 'not comparable' in ' '.join(table.notes)


def test_a_row_is_counted_with_its_smallest_and_largest_head():
    ends = [name_of('lora', 'patch_camelyon', 'mae'), name_of('lora', 'sun397', 'mae')]
    assert extremes([*row_names('lora', 'mae').values(), 'swin_fc_ssv2', SPT]) == [*ends, 'swin_fc_ssv2', SPT]


def spt_record(seed: int = 0, params: int = 400_000, **change):
    values = dict(dict(epoch=100, params=params, options={SPT_FILE: 'a/spt.safetensors'}), **change)
    return record(SPT, seed, 70.0 + seed, **values)


@pytest.mark.parametrize(
    ('change', 'counts'),
    [
        (dict(), True),
        (dict(params=999_999), True),
        (dict(epoch=99), False),
        (dict(options={'model.petl.spt.budget': '1.0M'}), False),
        (dict(options={'model': {'petl': {'spt': {'file': 'a', 'rank': 4}}}}), False),
    ],
)
def test_a_result_of_spt_counts_whatever_its_file_trains(change, counts):
    assert counts_as_printed(spt_record(**change), CONFIGS) is counts
    assert changed_options({SPT_FILE: 'a'}) == []


def test_a_result_of_other_parameters_of_a_counted_config_does_not():
    assert counts_as_printed(record(LORA, epoch=100, params=COUNTS[LORA]), CONFIGS)
    assert not counts_as_printed(record(LORA, epoch=100, params=294_912), CONFIGS)


def test_the_summary_of_spt_is_over_what_its_seeds_train():
    ours = mean_of(map(result_of, [spt_record(0, 400_000), spt_record(1, 400_003)]))
    assert (ours.top1, ours.params, ours.seeds) == (70.5, 400_002, 2)


def test_the_command_shows_runs_and_leaves_others_out(elsewhere, capsys):
    for i, task in enumerate(SPECIALIZED):
        name = name_of('lora', task)
        write_record(elsewhere / f'work_dirs/{i}', record(name, 0, 80.0 + i, epoch=100, params=COUNTS[name]))
    write_record(elsewhere / 'work_dirs/spt', spt_record(0, 400_000))
    write_record(elsewhere / 'work_dirs/spt1', spt_record(1, 400_000))
    write_record(elsewhere / 'work_dirs/other', record(LORA, epoch=100, params=5))
    assert call('tables', 'vtab', '--format', 'md') == 0
    text = capsys.readouterr().out
    cells = [[c.strip() for c in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('|')]
    rows = {(r[0], r[1]): dict(zip(cells[0], r, strict=True)) for r in cells[2:]}
    lora, spt = rows['LoRA', 'IN-21K'], rows['SPT-LoRA', 'IN-21K']
    shown = [lora[k] for k in ('M', 'specialized', 'natural', 'mean', 'done')]
    assert shown == ['0.29', '81.50', 'not run', 'not run', '4 of 19']
    assert [spt[k] for k in ('M', 'done', 'structured')] == ['0.40', '1 of 19', 'not run']
    assert '1 result(s) with other options, parameters' in text and 'Means over seeds (2).' in text


def test_the_figure_shows_the_papers_points_and_ours(tmp_path, monkeypatch):
    tables = Tables([], None, CONFIGS, counts=COUNTS)
    tables.ours = runs_of('sptlora', 400_000) | runs_of('adaptformer', 156_768) | runs_of('vpt', 460_801)
    tables.ours |= runs_of('full', 85_798_656, skip=('dtd',))
    seen = drawn(monkeypatch)
    assert are_figures(figure1c(tables, tmp_path), 'figure1c')
    axes = seen[0].axes[0]
    points = {(round(float(x), 3), y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)}
    # 0.31 % of 85,798,656 is 0.266 M
    paper = {(0.266, 75.9), (0.541, 76.4), (0.317, 76.2), (0.378, 76.4), (0.295, 75.0), (0.157, 74.7), (0.461, 72.0)}
    assert points == paper | {(0.4, 74.5), (0.157, 74.5)}
    assert 'ours' in [t.get_text() for t in axes.get_legend().get_texts()]
    tables.ours = {}
    figure1c(tables, tmp_path)
    assert 'ours: not run' in [t.get_text() for t in seen[-1].axes[0].get_legend().get_texts()]


def test_the_command_draws_it(elsewhere):
    assert call('tables', 'figure1c', '--out', 'figures') == 0
    assert {p.name for p in (elsewhere / 'figures').iterdir()} == {'figure1c.png', 'figure1c.pdf'}
