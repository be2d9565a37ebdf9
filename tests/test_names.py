"""The name of every file in configs/ says what the config says; the config is read here, not by the parser."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from vpetl_mm.config import load_config
from vpetl_mm.errors import UserError
from vpetl_mm.results.names import parse_name

REPO = Path(__file__).parents[1]
CONFIGS = sorted((REPO / 'configs').glob('*.py'))
DEMOS = [c for c in CONFIGS if c.stem.startswith('demo_')]
PAPER = [c for c in CONFIGS if c not in DEMOS]  # and the real transfer, in the same grammar
EXPERIMENTS = REPO.parent / 'shared/paper/experiments.csv'
DEMO = ['prefix', 'prompt', 'norm1', 'attnproj', 'attnqkv', 'attnrpb', 'norm2', 'mlpfc1', 'mlpfc2', 'downsample']
CLASSES = dict(ssv2=174, hmdb51=51, cifar100=100, svhn=10, food101=101, cifar100n50=100)
# train lists without the head
TRAIN = dict(
    full=['all'],
    bitfit=['attn.rpb', 'bias', 'norm1', 'norm2'],
    attnproj=['attn.proj'],
    attnqkv=['attn.qkv'],
    attnrpb=['attn.rpb'],
    mlpfc1=['mlp.fc1'],
    mlpfc2=['mlp.fc2'],
    norm1=['norm1'],
    norm2=['norm2'],
    downsample=['downsample'],
)
BASE = dict(k400=['kinetics400'], k600=['kinetics600'], in22k=['22k'], in21k=['21k'], mae=['mae'])
BASE |= dict(videomae=['videomae'], videomaek400=['videomae'], dinov2=['dinov2'])


load = cache(load_config)


def deltas(cfg) -> dict[str, dict]:
    """Type -> options of every delta, defaults of the Contract written out where a name depends on them."""
    defaults = dict(
        PATT=dict(slots='kv', scale=0.8, source='input', mode='add', init='default'),
        AdaptMLP=dict(d_bottle=64, scale=0.1, mode='parallel'),
        LoRA=dict(slots='qv', rank=16),
        Prefix=dict(num_tokens=16, d_middle=128),
        Prompt=dict(deep=True),
    )
    there = [dict(d) for d in (cfg.model.petl.get('deltas') or {}).values() if d is not None]
    return {d['type']: {**defaults[d['type']], **d} for d in there}


def expected_deltas(name) -> dict[str, dict]:
    """Type -> the options that the name fixes."""
    adapter = dict(AdaptMLP=dict(d_bottle=64, scale=0.1, mode='parallel'))
    if name.method in ('lora', 'vpt', 'adaptformer', 'prefix'):
        return dict(
            lora=dict(LoRA=dict(at='qkv', slots='qv', rank=name.size)),
            vpt=dict(Prompt=dict(num_tokens=1, deep=True)),
            adaptformer=dict(AdaptMLP=dict(adapter['AdaptMLP'], d_bottle=name.size)),
            prefix=dict(adapter, Prefix=dict(num_tokens=16, d_middle=name.size)),
        )[name.method]
    if 'pat' not in name.method:
        return {}
    variant = name.method.removeprefix('bapat').removeprefix('patt')
    patt = dict(d_bottle=name.size, scale=name.scale)
    patt['slots'] = variant if variant in ('qk', 'qv', 'qkv') else 'kv'
    patt['mode'] = 'concat' if variant == 'concat' else 'add'
    patt['source'] = 'tokens' if variant == 'tokens' else 'input'
    patt['init'] = 'zero' if variant == 'zero' else 'default'
    return dict(adapter, PATT=patt) if name.method.startswith('bapat') else dict(PATT=patt)


@pytest.mark.parametrize('path', PAPER, ids=lambda p: p.stem)
def test_a_name_says_what_its_config_says(path):
    name, cfg = parse_name(path.stem), load(path)
    model = cfg.model
    kind = model.backbone.type.rpartition('.')[2]
    assert kind == ('SwinTransformer3D' if name.backbone == 'swin' else 'VisionTransformer')
    assert model.type == ('PETLRecognizer3D' if name.frames else 'PETLImageClassifier')
    have = deltas(cfg)
    assert set(have) == set(expected_deltas(name))
    for delta, options in expected_deltas(name).items():
        assert {k: have[delta].get(k) for k in options} == options
    head = model.get('cls_head') or model.head
    assert head.num_classes == CLASSES[name.dataset]
    train = [t for t in model.petl.train if t not in ('head', 'fc_norm')]
    assert sorted(train) == TRAIN.get(name.method, []) or (train == ['fc_norm'] and 'videomae' in path.stem)
    assert name.fc == bool({'head', 'all'} & set(model.petl.train))
    loaders = [cfg[k] for k in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(k)]
    pipelines = [loader.dataset.pipeline for loader in loaders]
    lengths = {step.clip_len for pipeline in pipelines for step in pipeline if step.type == 'SampleFrames'}
    assert lengths == ({name.frames} if name.frames else set())
    lists = str(cfg.train_dataloader.dataset).lower()
    assert name.dataset in lists or (name.dataset, 'CIFAR100') == ('cifar100', cfg.train_dataloader.dataset.type)
    assert (model.base is None) == (name.pretrain == 'random')
    if model.base is None:
        return
    base = f'{model.base.file} {model.base.get("url", "")}'.lower()
    assert all(part in base for part in BASE[name.pretrain]), base
    assert ('kinetics' in base) == ('k400' in name.pretrain or 'k600' in name.pretrain) or name.backbone == 'vit'
    assert ('video' in base and 'mae' in base) == name.pretrain.startswith('videomae')


def test_each_pre_training_is_a_file_of_its_own():
    files: dict[tuple[str, str], set[str]] = {}
    for path in PAPER:
        name = parse_name(path.stem)
        files.setdefault((name.backbone, name.pretrain), set()).add((load(path).model.base or {}).get('file'))
    assert all(len(f) == 1 for f in files.values()), files
    assert len({next(iter(f)) for f in files.values()}) == len(files)


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason='the list of experiments is not at hand')
def test_the_papers_143_experiments_parse_to_their_settings_and_have_files():
    with open(EXPERIMENTS, newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 143
    for row in rows:
        name = parse_name(row['name'])
        assert name.file == row['name']
        said = [name.backbone + '_b', name.method, name.dataset, name.size or '', name.scale or '']
        said += [name.frames or '', name.pretrain, name.fc]
        keys = ['backbone', 'method', 'dataset', 'd_bottle', 'scale', 'frames', 'pretrain', 'fc']
        assert [str(s) for s in said] == [row[k] for k in keys]
    missing = {r['name'] for r in rows} - {c.stem for c in CONFIGS}
    assert not missing, f'{len(missing)} configs are missing'


def test_the_demos_configs_are_the_demos():
    demo = {c.stem for c in DEMOS}
    assert {f'demo_{m}' for m in DEMO} <= demo
    for stem in demo:
        name = parse_name(stem)
        assert name.is_demo and name.file == stem and name.dataset == 'demo' and name.frames == 8


def test_worked_examples():
    name = parse_name('swin_bapatqk_hmdb51_b128_s05_f16_k600_fc')
    assert (name.method, name.size, name.scale, name.frames, name.pretrain) == ('bapatqk', 128, 0.5, 16, 'k600')
    assert name.fc and name.size_kind == 'b'
    assert parse_name('swin_bapat_ssv2_b128_s10').scale == 1.0
    plain = parse_name('swin_lora_hmdb51_r16')
    assert (plain.scale, plain.frames, plain.pretrain, plain.fc, plain.size_kind) == (None, 8, 'k400', False, 'r')
    assert parse_name('vit_fc_svhn_mae').frames is None
    assert parse_name('vits14_bapat_vtabflowers102_b32_dinov2').dataset == 'vtabflowers102'


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        ('swin_bapat_ssv2_f16_b128', 'swin_bapat_ssv2_b128_f16'),
        ('swin_bapat_hmdb51_b128_fc_k600', 'swin_bapat_hmdb51_b128_k600_fc'),
        ('swin_bapat_ssv2_b128_k400', 'written swin_bapat_ssv2_b128.'),
        ('swin_bapat_ssv2_b128_s08', 'written swin_bapat_ssv2_b128.'),
        ('swin_fc_hmdb51_fc', 'written swin_fc_hmdb51.'),
        ('swin_bapt_ssv2_b128', "'bapat'"),
        ('swin_bapat_sv2_b128', "'ssv2'"),
        ('swn_bapat_ssv2_b128', "'swin'"),
        ('swin_bapat_ssv2_b128_k500', "'k600'"),
        ('swin_bapat_ssv2', '_bN'),
        ('swin_lora_ssv2_b16', '_rN'),
        ('swin_fc_ssv2_b16', 'no size'),
        ('swin_fc_ssv2_s05', 'no scale'),
        ('vit_fc_svhn_f16_mae', 'no frames'),
        ('vit_fc_svhn', 'mae'),
        ('swin_bapat_ssv2_b128_b64', "'b64'"),
        ('fc', 'fewer'),
        ('demo_', 'demo'),
    ],
)
def test_a_name_outside_the_grammar_is_told_the_grammar_and_the_nearest(wrong, said):
    with pytest.raises(UserError) as error:
        parse_name(wrong)
    text = str(error.value)
    assert wrong in text and '{backbone}_{method}_{dataset}' in text and said in text
