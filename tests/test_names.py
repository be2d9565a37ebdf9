"""The name of every file in configs/ says what the config says; the config is read here, not by the parser."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from vpetl_cli.shipped import experiments
from vpetl_mm.config import load_config
from vpetl_mm.errors import UserError
from vpetl_mm.paper.names import Name, parse_name

REPO = Path(__file__).parents[1]
CONFIGS = experiments(REPO / 'configs')
DEMOS = [c for c in CONFIGS if c.startswith('demo_')]
# of VTAB-1k's 19 tasks only one, as all are read from the same leaf
PAPER = [c for c in CONFIGS if c not in DEMOS and ('_vtab' not in c or 'vtabkitti' in c)]
EXPERIMENTS = REPO.parent / 'shared/paper/experiments.csv'
CLASSES = dict(ssv2=174, hmdb51=51, cifar100=100, svhn=10, food101=101, cifar100n50=100, vtabkitti=4)
SHOTS = {f'cifar100shot{n}': n for n in (5, 10, 50)}
CLASSES |= dict.fromkeys(SHOTS, 100)
# train lists without the head
POSITIONS = ('attn.proj', 'attn.qkv', 'attn.rpb', 'mlp.fc1', 'mlp.fc2', 'norm1', 'norm2', 'downsample')
TRAIN = {place.replace('.', ''): [place] for place in POSITIONS}
TRAIN |= dict(full=['all'], bitfit=['attn.rpb', 'bias', 'norm1', 'norm2'], compacter=['norm'])
# methods of further papers: the types of their deltas, with what the name's size is, and what the papers set
FURTHER = dict(
    ssf=dict(SSF=dict(init='normal')),
    repadapter=dict(RepAdapter=dict(d_bottle='size', groups=2, dropout=0.1)),
    dora=dict(DoRA=dict(at='qkv', slots='qv', rank='size')),
    facttt=dict(FacT=dict(form='TT', rank='size', dropout=0.1)),
    facttk=dict(FacT=dict(form='TK', rank='size', dropout=0.1)),
    vera=dict(VeRA=dict(at='qkv', slots='qv', rank='size', d_initial=0.1)),
    kadaptation=dict(KAdaptation=dict(slots='qv', n=32)),
    adapterplus=dict(AdapterPlus=dict(d_bottle='size', learn_scale='channel')),
    convpass=dict(Convpass=dict(d_bottle='size', dropout=0.1)),
    mona=dict(Mona=dict(d_bottle='size', kernels=(3, 5, 7), dropout=0.1)),
    compacter=dict(Compacter=dict(n=4, rank=1, d_bottle='size')),
    mam=dict(Prefix=dict(num_tokens=30, d_middle=None), AdaptMLP=dict(d_bottle='size', scale=4.0, mode='parallel')),
    mhpa=dict(MHPA=dict(num_tokens='size')),
    dtl=dict(DTL=dict(rank='size')),
)
BASE = dict(k400=['kinetics400'], k600=['kinetics600'], in22k=['22k'], in21k=['21k'], mae=['mae'])
BASE |= dict(videomae=['videomae'], videomaek400=['videomae'], dinov2=['dinov2'], mocov3=['moco-v3', 'mocov3'])
KINDS = dict(swin='SwinTransformer3D', vit='VisionTransformer', timmvit='TimmBackbone', hfvit='HFBackbone')
BASE |= dict(dinov3=['dinov3'], vjepa2=['vjepa2'])

load = cache(load_config)


def deltas(cfg) -> dict[str, dict]:
    """Type -> options of every delta, defaults of the Contract written out where a name depends on them."""
    defaults = dict(
        PATT=dict(slots='kv', scale=0.8, source='input', mode='add', init='default', learn_scale=False),
        AdaptMLP=dict(d_bottle=64, scale=0.1, mode='parallel'),
        LoRA=dict(slots='qv', rank=16),
        Prefix=dict(num_tokens=16, d_middle=128),
        Prompt=dict(deep=True),
    )
    there = [dict(d) for d in (cfg.model.petl.get('deltas') or {}).values() if d is not None]
    return {d['type']: {**defaults.get(d['type'], {}), **d} for d in there}


def expected_deltas(name) -> dict[str, dict]:
    """Type -> the options that the name fixes."""
    if name.method in FURTHER:
        said = FURTHER[name.method].items()
        return {t: {k: name.size if v == 'size' else v for k, v in options.items()} for t, options in said}
    adapter = dict(AdaptMLP=dict(d_bottle=64, scale=0.1, mode='parallel'))
    if name.method in ('lora', 'vpt', 'adaptformer', 'prefix'):
        return dict(
            lora=dict(LoRA=dict(at='qkv', slots='qv', rank=name.size)),
            vpt=dict(Prompt=dict(num_tokens=50 if 'vtab' in name.dataset else 1, deep=True)),
            adaptformer=dict(AdaptMLP=dict(adapter['AdaptMLP'], d_bottle=name.size)),
            prefix=dict(adapter, Prefix=dict(num_tokens=16, d_middle=name.size)),
        )[name.method]
    if 'pat' not in name.method or name.method.startswith('spt'):
        return {}
    variant = name.method.removeprefix('bapat').removeprefix('patt')
    patt = dict(d_bottle=name.size, scale=name.scale)
    patt['slots'] = variant if variant in ('qk', 'qv', 'qkv') else 'kv'
    patt['mode'] = 'concat' if variant == 'concat' else 'add'
    patt['source'] = 'tokens' if variant == 'tokens' else 'input'
    patt['init'] = 'zero' if variant == 'zero' else 'default'
    patt['learn_scale'] = variant == 'learned'
    return dict(adapter, PATT=patt) if name.method.startswith('bapat') else dict(PATT=patt)


@pytest.mark.parametrize('stem', PAPER)
def test_a_name_says_what_its_config_says(stem):
    name, cfg = parse_name(stem), load(stem)
    model = cfg.model
    kind, own = model.backbone.type.rpartition('.')[2], name.backbone.removesuffix('s14').removesuffix('l')
    assert kind == KINDS[own]
    assert model.type == ('PETLRecognizer3D' if name.frames else 'PETLImageClassifier')
    have = deltas(cfg)
    assert set(have) == set(expected_deltas(name))
    for delta, options in expected_deltas(name).items():
        assert {k: have[delta].get(k) for k in options} == options
    head = model.get('cls_head') or model.head
    assert head.num_classes == CLASSES[name.dataset]
    train = [t for t in model.petl.train if t not in ('head', 'fc_norm')]
    wanted = ['bias'] if 'vit' in name.backbone and name.method == 'bitfit' else TRAIN.get(name.method, [])
    assert sorted(train) == wanted or (train == ['fc_norm'] and 'videomae' in stem)
    assert bool(model.petl.get('spt')) == name.method.startswith('spt')
    if model.petl.get('spt'):
        assert model.petl.spt.structured == ('LoRA' if name.method.startswith('sptlora') else 'AdaptMLP')
        assert model.petl.spt.file == f'work_dirs/{stem}/spt.safetensors'
        variant = name.method.removeprefix('sptlora').removeprefix('sptadapter')
        assert model.petl.spt.get('control') == (variant if variant in ('random', 'shuffled') else None)
        assert model.petl.spt.get('head', 'start') == ('probe' if 'probe' in variant else 'start')
        assert model.petl.spt.get('gradients', 'batch') == ('sample' if 'sample' in variant else 'batch')
        assert name.budget is None or model.petl.spt.budget == 1000 * name.budget
    assert name.fc == bool({'head', 'all'} & set(model.petl.train))
    loaders = [cfg[k] for k in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(k)]
    pipelines = [loader.dataset.pipeline for loader in loaders]
    lengths = {step.clip_len for pipeline in pipelines for step in pipeline if step.type == 'SampleFrames'}
    assert lengths == ({name.frames} if name.frames else set())
    data = cfg.train_dataloader.dataset
    named = name.dataset.replace('vtab', 'vtab1k/') in str(data).lower()
    assert named or (name.dataset, data.type) == ('cifar100', 'CIFAR100') or name.dataset in SHOTS
    assert {loader.dataset.get('per_class') for loader in loaders[:-1]} == {SHOTS.get(name.dataset)}
    assert loaders[-1].dataset.get('per_class') is None
    assert (model.base is None) == (name.pretrain == 'random')
    if model.base is None:
        return
    base = f'{model.base.file} {model.base.get("url", "")}'.lower()
    assert all(part in base for part in BASE[name.pretrain]), base
    assert ('kinetics' in base) == ('k400' in name.pretrain or 'k600' in name.pretrain) or name.backbone == 'vit'
    assert ('video' in base and 'mae' in base) == name.pretrain.startswith('videomae')


def test_each_pre_training_is_a_file_of_its_own():
    files: dict[tuple[str, str], set[str]] = {}
    for stem in PAPER:
        name = parse_name(stem)
        # VTAB-1k has an ImageNet-21k of its own
        backbone = name.backbone + ('-vtab' if 'vtab' in name.dataset else '')
        files.setdefault((backbone, name.pretrain), set()).add((load(stem).model.base or {}).get('file'))
    assert all(len(f) == 1 for f in files.values()), files
    assert files['vit', 'mae'] == files['vit-vtab', 'mae'] and files['vit', 'in21k'] != files['vit-vtab', 'in21k']
    others = [f for (backbone, pretrain), f in files.items() if (backbone, pretrain) != ('vit-vtab', 'mae')]
    assert len({next(iter(f)) for f in others}) == len(others)


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
    assert {r['name'] for r in rows} <= {*CONFIGS}


def test_the_demos_configs_are_the_demos():
    assert {f'demo_{m}' for m in (*TRAIN, 'prefix', 'prompt')} <= {*DEMOS}
    for stem in DEMOS:
        name = parse_name(stem)
        assert name.is_demo and name.file == stem and name.dataset == 'demo' and name.frames == 8


def test_worked_examples():
    for text, *said in (
        ('swin_bapatqk_hmdb51_b128_s05_f16_k600_fc', 'swin', 'bapatqk', 'hmdb51', 'b', 128, 0.5, 16, 'k600', True),
        ('swin_bapat_ssv2_b128_s10', 'swin', 'bapat', 'ssv2', 'b', 128, 1.0, 8, 'k400', True),
        ('swin_lora_hmdb51_r16', 'swin', 'lora', 'hmdb51', 'r', 16, None, 8, 'k400', False),
        ('vit_sptlora_vtabclevrcount_mocov3', 'vit', 'sptlora', 'vtabclevrcount', *[None] * 4, 'mocov3', True),
    ):
        assert parse_name(text) == Name(*said)
    assert parse_name('vits14_bapat_vtabflowers102_b32_dinov2').dataset == 'vtabflowers102'
    studied = Name('vits14', 'sptloraprobe', 'cifar100shot10', pretrain='dinov2', fc=True, budget=100)
    assert parse_name('vits14_sptloraprobe_cifar100shot10_100k_dinov2') == studied


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        ('swin_bapat_ssv2_f16_b128', 'swin_bapat_ssv2_b128_f16'),
        ('swin_bapat_hmdb51_b128_fc_k600', 'swin_bapat_hmdb51_b128_k600_fc'),
        ('swin_bapat_ssv2_b128_k400', 'spelled swin_bapat_ssv2_b128.'),
        ('swin_bapat_ssv2_b128_s08', 'spelled swin_bapat_ssv2_b128.'),
        ('swin_fc_hmdb51_fc', 'spelled swin_fc_hmdb51.'),
        ('swin_bapt_ssv2_b128', "'bapat'"),
        ('swin_bapat_sv2_b128', "'ssv2'"),
        ('swn_bapat_ssv2_b128', "'swin'"),
        ('vit_sptlora_vtabclevr_count_in21k', "'vtabclevrdist'"),
        ('vit_sptlora_vtabflower102_in21k', "'vtabflowers102'"),
        ('vit_sptlora_vtaboxfordiiitpet_in21k', "'vtabiiitpet'"),
        ('vit_sptlra_vtabcifar_in21k', "'sptlora'"),
        ('vit_sptlora_vtabcifar_r8_in21k', 'no size'),
        ('vit_lora_vtabcifar_in21k', '_rN'),
        ('vit_lora_vtabcifar_r8_mocov2', "'mocov3'"),
        ('vits14_lora_cifar100n50_r8_mocov3', 'not a pre-training; valid: dinov2'),
        ('swin_bapat_ssv2_b128_k500', "'k600'"),
        ('swin_bapat_ssv2', '_bN'),
        ('swin_lora_ssv2_b16', '_rN'),
        ('swin_fc_ssv2_b16', 'no size'),
        ('swin_fc_ssv2_s05', 'no scale'),
        ('vits14_fc_cifar100n50_100k_dinov2', 'no budget'),
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
