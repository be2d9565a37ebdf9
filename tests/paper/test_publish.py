"""What is generated is what stands in the repository; results come into the metafile whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from records import readme_counts, record

from vpetl_mm.config import load_config
from vpetl_mm.engine.record import write_record
from vpetl_mm.errors import UserError
from vpetl_mm.paper.few_shot import apart_table, rates_table
from vpetl_mm.paper.metafile import Entry, Ours, load_metafile, write_metafile
from vpetl_mm.paper.names import SPT_METHODS, parse_name
from vpetl_mm.paper.publish import (
    BEGIN,
    END,
    Collected,
    collect,
    configs_tables,
    describe,
    documents,
    regenerated,
    results,
)
from vpetl_mm.paper.tables import Tables, counts_as_printed
from vpetl_mm.paper.vtab import row_names

REPO = Path(__file__).parents[2]
VTAB = 'vit_fc_vtabflowers102_mae'
LR = 'optim_wrapper.optimizer.lr'
# a search's files, as docs/few_shot.md has it run
HEAD = 'trial,state,acc/top1,{},params,epochs,seconds,reason'
EPOCHS = {'train_cfg.max_epochs': 10, 'param_scheduler.1.end': 10, 'param_scheduler.1.T_max': 8}
SEARCH = dict(metric='acc/top1', sampler='grid', pruner='none', fraction=0.2, options=EPOCHS)
LORA, PARAMS = 'vits14_lora_cifar100shot10_r16_dinov2', 333_412


def test_the_generated_pages_are_not_stale():
    pages = documents(REPO, readme_counts())
    assert {p.relative_to(REPO).as_posix() for p in pages} == {
        'configs/README.md',
        'docs/reproduction.md',
        'docs/real_transfer.md',
        'docs/few_shot.md',
    }
    for path, text in pages.items():
        assert path.read_text(encoding='utf-8') == text, f'{path.name} is stale: run tools/tables.py --docs'


def test_collecting_fills_in_what_was_run_and_nothing_else(tmp_path):
    configs = tmp_path / 'configs'
    shutil.copytree(REPO / 'configs', configs)
    shutil.copytree(REPO / 'docs', tmp_path / 'docs')
    metafile = configs / 'metafile.yml'
    before = load_metafile(metafile)
    work_dirs = tmp_path / 'work_dirs'
    assert collect(metafile, work_dirs) == Collected([], [], 0) and load_metafile(metafile) == before
    for seed, top1 in enumerate((50.0, 52.0)):
        write_record(work_dirs / f'{seed}', record('swin_fc_ssv2', seed, top1))
    write_record(work_dirs / 'vtab', record(VTAB, epoch=100, params=102 * 769, finished='2026-01-02'))
    write_record(work_dirs / 'mine', record('mine'))
    write_record(work_dirs / 'changed', record('swin_full_ssv2', options={'model.petl.train': []}))
    assert collect(metafile, work_dirs) == Collected(['swin_fc_ssv2', VTAB], [], 2)
    after = load_metafile(metafile)
    changed = [e for e, b in zip(after, before, strict=True) if e != b]
    assert [e.name for e in changed] == ['swin_fc_ssv2', VTAB] and changed[1].ours.top1 == 50.0
    ours = changed[0].ours
    assert (ours.top1, ours.seeds, ours.spread) == (51.0, 2, 1.41)
    assert changed[0].where.startswith('here, collected at commit ') and changed[0].where.endswith('2026-01-02')
    assert metafile.read_text().startswith((REPO / 'configs/metafile.yml').read_text().partition('remarks:')[0])
    shown = documents(tmp_path, readme_counts())[tmp_path / 'docs/reproduction.md']
    assert '51.00 ± 1.41' in shown and f'- {changed[0].where}: swin_fc_ssv2, {VTAB}' in shown
    changed[0].where = '<script>alert(1)</script> | [a](http://b) `c`'
    shown = results(after, readme_counts())
    assert r'- &lt;script&gt;alert(1)&lt;/script&gt; \| \[a\](http://b) \`c\`: swin_fc_ssv2' in shown


def test_runs_stay_by_seed_when_a_later_session_adds_others(tmp_path):
    metafile, runs = tmp_path / 'configs/metafile.yml', tmp_path / 'runs'
    shutil.copytree(REPO / 'configs', metafile.parent)
    write_metafile(metafile, [Entry(LORA) if e.name == LORA else e for e in load_metafile(metafile)])
    for session, seeds in enumerate([(0, 1), (2,)]):
        for seed in seeds:
            folder = runs / f'{session}/{seed}'
            own = dict(machine=f'machine {session}', finished=f'2026-01-0{1 + session}')
            write_record(folder, record(LORA, seed, 40.0 + seed, epoch=20, params=PARAMS, **own))
            times = dict(started='2026-01-01T00:00:00', ended=f'2026-01-01T00:{30 + seed}:00')
            (folder / 'attempt.json').write_text(json.dumps(dict(state='done', reason='', machine='here', **times)))
        assert collect(metafile, runs / f'{session}') == Collected([LORA], [], 0)
    entry = next(e for e in load_metafile(metafile) if e.name == LORA)
    assert {s: (r.top1, r.hours) for s, r in entry.by_seed.items()} == {0: (40, 0.5), 1: (41, 0.517), 2: (42, 0.533)}
    assert (entry.ours.top1, entry.ours.seeds, entry.ours.spread, entry.ours.hours) == (41.0, 3, 1.0, 1.55)
    assert Tables([entry], runs / '1', metafile.parent, {LORA: PARAMS}).ours[LORA].seeds == 3
    assert [place.partition(',')[0] for place in entry.where.split('; ')] == ['machine 0', 'machine 1']
    write_record(runs / '2', replace(record(LORA, 0, 10.0, epoch=20, params=PARAMS), seed=None))
    assert collect(metafile, runs / '2') == Collected([], [], 1), 'without a seed it could be one of the three'
    assert Tables([entry], runs / '2', metafile.parent, {LORA: PARAMS}).ours[LORA] == entry.ours
    assert next(e for e in load_metafile(metafile) if e.name == LORA) == entry
    (runs / '1/2/attempt.json').unlink()
    collect(metafile, runs / '1')
    assert next(e for e in load_metafile(metafile) if e.name == LORA).ours.hours == 0, 'not known of one'
    older = [Entry(LORA, ours=Ours(50.0, 90.0, 50.0, PARAMS, 3, 1.0))]
    write_metafile(metafile, [older[0] if e.name == LORA else e for e in load_metafile(metafile)])
    assert collect(metafile, runs / '1') == Collected([], [], 1), 'a mean of three is not replaced by one run'


def test_what_a_search_found_is_collected(tmp_path):
    metafile, search = tmp_path / 'configs/metafile.yml', tmp_path / 'runs/tune' / LORA
    shutil.copytree(REPO / 'configs', metafile.parent)
    search.mkdir(parents=True)
    write_metafile(metafile, [Entry(LORA) if e.name == LORA else e for e in load_metafile(metafile)])

    def found(*rows: str, searched: bool = True, **about) -> dict:
        (search / 'search.csv').write_text('\n'.join([HEAD.format(LR), *rows]) + '\n')
        (search / 'search.json').write_text(json.dumps(dict(SEARCH, spaces={LR: '[1,2]'}) | about))
        assert collect(metafile, tmp_path / 'runs').searched == [LORA] * searched
        return next(e for e in load_metafile(metafile) if e.name == LORA).search

    tried = {0.0003: 30.0, 0.003: 41.5, 0.01: None}
    rows = '0,done,41.5,0.003,9,10,60,', '1,failed,,0.01,,3,20,nan', '2,done,30,0.0003,9,10,60,', '3,running,,1,,,,'
    assert found(*rows) == tried
    (row,) = (r for r in rates_table(load_metafile(metafile), metafile.parent).rows if r[:2] == ['lora', 'dinov2'])
    assert row[3] == '0.0003: 30, 0.003: 41.5, 0.01: failed'
    assert found('0,failed,,0.003,,3,20,nan', '1,done,35.5,0.001,9,10,60,') == tried | {0.001: 35.5}, 'others stay'
    # a search for more, by another score, or of other runs is none of this table
    for other in (
        dict(spaces={LR: '[1,2]', 'model.petl.deltas.lora.rank': '[1,2]'}),
        dict(metric='acc/mean_class'),
        dict(options=dict(SEARCH['options'], **{'train_cfg.max_epochs': 1})),
        dict(options=dict(SEARCH['options'], **{'train_dataloader.dataset.ann_file': 'mine.npz'})),
        dict(pruner='hyperband'),
        dict(fraction=0.5),
    ):
        assert found('0,done,50,0.003,9,10,60,', searched=False, **other) == tried | {0.001: 35.5}
    for wrong in (
        '0,done,x,0.003,9,10,60,',
        '0,done,500,0.003,9,10,60,',
        '0,done,nan,0.003,9,10,60,',
        f'0,{"a" * 200_000}',
    ):
        with pytest.raises(UserError, match=r'search\.csv is corrupt'):
            found(wrong)
    for wrong in (dict(spaces=3), dict(options=[1])):
        with pytest.raises(UserError, match=r'search\.json is corrupt'):
            found(*rows, **wrong)


def test_rates_apart_are_collected(tmp_path):
    """Beside the factor 1, which is the search for the rate of all."""
    name, factor = 'vits14_sptlora_cifar100shot10_dinov2', 'optim_wrapper.paramwise_cfg.groups.{}.lr_mult'
    rows = '0,done,30,3.0,9,10,6,\n1,done,42.5,0.1,9,10,6,\n'
    metafile, tune = tmp_path / 'configs/metafile.yml', tmp_path / 'runs/tune'
    shutil.copytree(REPO / 'configs', metafile.parent)
    for part, key in (('entries', factor.format('entries')), ('deltas', factor.format('vectors'))):
        (tune / part / name).mkdir(parents=True)
        (tune / part / name / 'search.csv').write_text(f'{HEAD.format(key)}\n{rows}')
        (tune / part / name / 'search.json').write_text(json.dumps(dict(SEARCH, spaces={key: '[3,0.1]'})))
    assert collect(metafile, tmp_path / 'runs') == Collected([], [name], 0)
    entries = load_metafile(metafile)
    (studied,) = (e for e in entries if e.name == name)
    assert studied.apart == {'entries': {0.1: 42.5, 3.0: 30.0}}, 'the other search was for another part'
    studied.search = {load_config(metafile.parent / f'{name}.py').optim_wrapper.optimizer.lr: 40.0}
    tried = [row[1] for row in apart_table(entries, metafile.parent).rows]
    assert tried == ['0.1: 42.5, 1: 40, 3: 30', 'not run', 'not run']


def test_a_page_keeps_its_words_and_gets_new_parts(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{BEGIN}old\nold{END}\nbetween\n{BEGIN}{END}\nafter\n')
    text = f'before\n{BEGIN}\n\na\n\n{END}\nbetween\n{BEGIN}\n\nb\n\n{END}\nafter\n'
    assert regenerated(page, 'a', 'b') == text
    with pytest.raises(UserError, match='must have 1 parts between the comments'):
        regenerated(page, 'a')


def test_the_list_of_configs_has_a_row_for_each_leaf():
    entries = [Entry(n) for m in ('lora', 'sptlora') for n in row_names(m, 'in21k').values()]
    entries.append(Entry('vits14_sptlorarandom_cifar100n50_dinov2', ['T1/a', 'T2/b']))
    counts = {'vit_lora_vtabpatchcamelyon_r8_in21k': 296_450, 'vit_lora_vtabsun397_r8_in21k': 600_205}
    plain, vtab = configs_tables(entries, counts)
    assert '39 experiments in 3 files' in plain and 'flowers102 (102)' in vtab and 'clevrcount (8)' in vtab
    assert plain.splitlines()[4:] == [
        '| [vits14_sptlorarandom_cifar100n50_dinov2](vits14_sptlorarandom_cifar100n50_dinov2.py) | T1/a, T2/b '
        '| by budget | SPT-LoRA, at random places, ViT-S/14 from DINOv2, CIFAR-100 (50 images a class), FC trained |'
    ]
    assert vtab.splitlines()[-2:] == [
        '| [`vit_lora_vtab<task>_r8_<pretrain>`](vtab1k/vit_lora_vtab_r8.py) | 296,450 to 600,205 '
        '| LoRA, rank 8, ViT-B from IN-21K or MAE or MoCo v3, VTAB-1k, FC trained |',
        '| [`vit_sptlora_vtab<task>_<pretrain>`](vtab1k/vit_sptlora_vtab.py) | by budget '
        '| SPT-LoRA, ViT-B from IN-21K or MAE or MoCo v3, VTAB-1k, FC trained |',
    ]


def test_a_strangers_record_names_no_file_that_is_run(tmp_path):
    """Also one that was not read from a file, where its name would have been refused."""
    (tmp_path / 'stranger.py').write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()")
    shutil.copytree(REPO / 'configs/_base_', tmp_path / 'configs/_base_')
    assert counts_as_printed(record('../stranger'), tmp_path / 'configs')
    assert not (tmp_path / 'was_run').exists()


def test_an_experiment_in_a_line():
    name = parse_name('swin_bapatqk_hmdb51_b128_s05_f16_k600_fc')
    assert describe(name) == (
        'BAPAT, on q, k, d_bottle 128, s 0.5, Video Swin-B from K600, HMDB51, 16 frames, FC trained'
    )
    assert 'rank 16' in describe(parse_name('swin_lora_ssv2_r16'))
    assert describe(parse_name('demo_one_frame')) == 'the demo: one frame'
    controls = {describe(parse_name(f'vits14_{m}_cifar100n50_dinov2')) for m in SPT_METHODS}
    assert len(controls) == len(SPT_METHODS) and all(t.startswith(('SPT-LoRA', 'SPT-Adapter')) for t in controls)
