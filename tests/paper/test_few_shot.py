"""The tables of few-shot transfer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from vpetl_mm.commands.grid import batch_options
from vpetl_mm.config import load_config
from vpetl_mm.paper.few_shot import BUDGETS, EXPERIMENTS, MEASURED, few_shot_table
from vpetl_mm.paper.metafile import Ours, load_metafile

CONFIGS = Path(__file__).parents[2] / 'configs'
ALL = [*dict.fromkeys(name for names in EXPERIMENTS.values() for name in names)]
load = cache(load_config)


@pytest.fixture(scope='module', params=ALL)
def cfg(request):
    return load(CONFIGS / f'{request.param}.py')


def test_the_same_images_and_steps_for_each(cfg):
    """Only the number of images a class differs."""
    reference = load(CONFIGS / f'{ALL[0]}.py')
    assert batch_options(cfg, 1) == [] and cfg.train_cfg.max_epochs == 20
    assert cfg.param_scheduler == reference.param_scheduler and cfg.test_dataloader == reference.test_dataloader
    assert cfg.train_dataloader.batch_size == 32 and cfg.model.backbone.img_size == 112
    for loader in ('train_dataloader', 'val_dataloader'):
        ours, theirs = dict(cfg[loader].dataset), dict(reference[loader].dataset)
        shots = {'shot5': 5, 'shot50': 50}.get(Path(cfg.filename).stem.split('_')[2].removeprefix('cifar100'), 10)
        assert ours.pop('per_class') == shots and theirs.pop('per_class') == 10 and ours == theirs
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.optimizer.type, wrapper.optimizer.weight_decay) == (
        'AutocastOptimWrapper',
        'AdamW',
        0,
    )


def test_a_chosen_rate_is_the_best_that_was_tried():
    """Of the searches that the metafile records; a control of SPT, a study and other amounts of images inherit it."""
    for entry in load_metafile(CONFIGS / 'metafile.yml'):
        if entry.search:
            done = {rate: top1 for rate, top1 in entry.search.items() if top1 is not None}
            cfg = load(CONFIGS / f'{entry.name}.py')
            assert cfg.optim_wrapper.optimizer.lr in [r for r, v in done.items() if v == max(done.values())]
            assert cfg.trials == len(entry.search)


def test_rows_show_what_was_run_and_what_was_not():
    fc = EXPERIMENTS['fewshot'][1]
    ours, counts = {fc: Ours(31.25, 60.5, 31.0, 500, 3, 0.75, 0.126)}, dict.fromkeys(EXPERIMENTS['fewshot'], 1000)
    table = few_shot_table('fewshot', ours, counts | {fc: 500}, CONFIGS)
    assert len(table.rows) == 28 and '10 training images a class' in table.title
    assert table.rows[0][5:] == ['not run', '-', '-', '-', '']
    assert table.rows[1][:4] == ['fc', 'dinov2', '500', '50.0%']
    assert table.rows[1][5:] == ['31.25 ± 0.75', '60.50', '3', '0.13', '']
    random = few_shot_table('fewshot_random', {}, dict.fromkeys(EXPERIMENTS['fewshot_random'], 1), CONFIGS)
    assert {row[1] for row in random.rows} == {'random'} and 'random backbone' in random.title
    assert '5 training images' in few_shot_table('fewshot5', {}, dict.fromkeys(EXPERIMENTS['fewshot5'], 1)).title


def test_what_spt_measures_by_budget():
    probe = EXPERIMENTS['fewshot_spt'][1]
    assert probe == 'vits14_sptloraprobe_cifar100shot10_100k_dinov2'
    table = few_shot_table('fewshot_spt', {probe: Ours(31.25, 60.5, 31.0, 99_000, 3, 0.75)}, {})
    assert len(table.rows) == len(MEASURED) and len(table.head) == len(BUDGETS) + 3
    assert table.rows[1][1:] == ['31.25 ± 0.75', 'not run', 'not run', '3/0/0', '']


def test_patts_settings_stand_in_the_configs():
    table = few_shot_table('fewshot_patt', {}, {})
    for name, (width, scale, slots, init, *_) in zip(EXPERIMENTS['fewshot_patt'], table.rows, strict=True):
        patt = load(CONFIGS / f'{name}.py').model.petl.deltas.patt
        assert (str(patt.d_bottle), patt.slots, patt.get('init', 'default')) == (width, slots, init)
        assert scale.split()[0] == f'{patt.scale:g}' and patt.get('learn_scale', False) == ('learned' in scale)
    assert table.rows[0][:4] == ['32', '0.8', 'kv', 'default'], 'as published'
