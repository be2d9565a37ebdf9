"""Every config is built and trains what the paper prints."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from mmengine import Config
from records import readme_counts

from vpetl_cli.shipped import experiments
from vpetl_mm.config import load_config
from vpetl_mm.measure.cost import classes_of, key_of, one_of_each, stored
from vpetl_mm.measure.count import count_params, trainable
from vpetl_mm.paper.metafile import load_metafile

REPO = Path(__file__).parents[1]
CONFIGS = sorted((REPO / 'configs').glob('*.py'))  # VTAB-1k's are in tests/test_vtab_configs.py
BUILT = [c for c in CONFIGS if '_spt' not in c.stem]  # a file made from the data decides what SPT trains
METAFILE = REPO / 'configs/metafile.yml'

# Printed figures that arithmetic does not give: an experiment, or the cell of a mean -> what it trains, by its parts.
MISPRINTS = {
    'swin_attnqkv_ssv2': 3 * (6_979_584 + 12_032),
    'swin_prefix_hmdb51_b128': 4_647_424 + 16 * 12_032 + 1_553_664,
    'swin_patt_ssv2_b32': 1_179_904 + 178_350,
    'swin_patt_hmdb51_b32': 1_179_904,
    'swin_bapat_hmdb51_b32': 1_179_904 + 1_553_664,
    **{f'swin_bapat_hmdb51_b256{suffix}': 9_270_784 + 1_553_664 for suffix in ('', '_k600', '_in22k')},
    'swin_bapatqkv_hmdb51_b128_k600': 24 * 128 + 12_032 * 4 * 128 + 3 * 12_032 + 1_553_664,
    'T7/full': (3 * 85_771_008 + 2 * 86_227_200) / 5 + 335_284 / 5,
}


@pytest.fixture(scope='module')
def counts() -> dict[str, int]:
    return trainable([c.stem for c in BUILT], REPO / 'configs')


@cache
def config_of(path: Path) -> Config:
    return load_config(path)


def test_every_experiment_has_its_cost_kept_with_its_parameters(counts):
    costs, keys = stored(REPO / 'configs/costs.json'), set()
    shipped = experiments(REPO / 'configs')
    for name in one_of_each(shipped):
        if not name.startswith('demo_'):  # the demo's clips have the size, which no step of its pipeline states
            cfg = config_of(shipped[name])
            keys.add(key := key_of(cfg))
            trained = costs[key].trained.at(classes_of(cfg))
            assert name not in counts or trained == counts[name], f'{name} is stale: tools/tables.py --docs'
    assert keys == {*costs}


def test_every_experiment_counts_as_printed(counts):
    entries = [e for e in load_metafile(METAFILE) if e.cells]
    assert len(entries) == 143
    figures, means = {}, defaultdict(list)
    for entry in entries:
        figure = (counts[entry.name], entry.paper.params_m)
        if entry.paper.params_are == 'own':
            figures[entry.name] = figure
        else:
            means[entry.cells[0]].append(figure)
    assert len(means) == 15 and all(len(rows) == 5 for rows in means.values())
    figures |= {cell: (sum(n for n, _ in rows) / 5, rows[0][1]) for cell, rows in means.items()}
    off = {name: ours for name, (ours, printed) in figures.items() if abs(ours / 1e6 - printed) > 0.0051}
    assert off == pytest.approx(MISPRINTS, rel=1e-12)


def test_the_generated_list_of_experiments_has_these_counts(counts):
    shown = {n: count for n, count in readme_counts().items() if '_vtab' not in n}
    assert shown == counts, 'stale: tools/tables.py --docs'


@pytest.mark.parametrize(
    ('name', 'total'),
    [
        ('vit_full_cifar100_mae', 85_798_656 + 769 * 100),
        ('vit_full_cifar100_in21k', 85_771_008 + 769 * 100),
        ('vit_full_ssv2_videomae', 86_227_200 + 769 * 174),
    ],
)
def test_backbones_have_the_size_of_the_papers(name, total):
    assert count_params([name])[0]['total'] == total


@pytest.mark.parametrize('path', [c for c in CONFIGS if c.stem.startswith('vit_')], ids=lambda c: c.stem)
def test_a_vit_leaf_is_short_and_keeps_the_recipe(path):
    assert len(path.read_text().splitlines()) <= 12
    cfg = config_of(path)
    image = cfg.default_scope == 'mmpretrain'
    assert image == any(d in path.stem for d in ('cifar100', 'svhn', 'food101'))
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0)
    # 256 images or 64 clips on 4 GPUs, lr x batch / 256
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=256)
    assert cfg.train_dataloader.batch_size == (64 if image else 16)
    assert cfg.train_cfg.max_epochs == (100 if image else 70)
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == (20 if image else 10)
    assert cfg.model['head' if image else 'cls_head'].get('bn', True)
    adapter = cfg.model.petl.get('deltas', {}).get('adapter')
    if adapter:
        assert adapter.source == 'residual' and adapter.dropout == (0.1 if image else 0.0) and adapter.d_bottle == 64
    if image:
        scaled = cfg.model.data_preprocessor.std == [255.0] * 3
        assert scaled == ('in21k' in path.stem) == (not cfg.model.backbone.qkv_bias)
    if path.stem.endswith('_videomae') and cfg.model.petl.train != ['all']:
        assert 'fc_norm' in cfg.model.petl.train, 'the pre-trained file has none'


@pytest.mark.parametrize('path', [c for c in CONFIGS if c.stem.startswith('swin_')], ids=lambda c: c.stem)
def test_a_swin_leaf_is_short_and_keeps_the_recipe(path):
    assert len(path.read_text().splitlines()) <= 12
    cfg = config_of(path)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=256) and cfg.train_dataloader.batch_size == 16
    assert cfg.train_cfg.max_epochs == 70 and cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 10
    assert all(s.convert_to_iter_based for s in cfg.param_scheduler)
    assert cfg.model.base.file and cfg.model.base.url.startswith('https://')
    assert cfg.model.backbone.drop_path_rate == 0.4
    views = cfg.test_dataloader.dataset.pipeline
    assert views[1].num_clips == 4 and views[4].type == 'ThreeCrop' and views[3].scale == (-1, 224)
    # what is chosen on is never what is reported on
    assert cfg.val_dataloader.dataset.ann_file == cfg.train_dataloader.dataset.ann_file
    assert cfg.val_dataloader.dataset.held_out and not cfg.train_dataloader.dataset.get('held_out')
    assert cfg.test_dataloader.dataset.ann_file not in (cfg.train_dataloader.dataset.ann_file,)


def test_configs_are_plain_data():
    for path in (REPO / 'configs').rglob('*.py'):
        kinds = {type(n) for n in ast.walk(ast.parse(path.read_text()))}
        assert not kinds & {ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Lambda}, path
