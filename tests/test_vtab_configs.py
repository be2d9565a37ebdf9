"""The configs of VTAB-1k: its leaves, and the experiment that each becomes by a task and a pre-training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from records import readme_counts
from small_vtab import CLASSES, FURTHER, PRETRAINED, SIZES, WITHOUT_HEAD, name_of

from tools import call, refused
from vpetl_cli.shipped import experiments
from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine.experiment import Options, prepare
from vpetl_mm.errors import UserError
from vpetl_mm.measure.count import trainable
from vpetl_mm.petl import host_of
from vpetl_mm.spt.allocation import Allocation, UnitAllocation, write_allocation
from vpetl_mm.spt.choice import Settings
from vpetl_mm.spt.units import units_of

CONFIGS = Path(__file__).parents[1] / 'configs'
LORA = 'vit_lora_vtabflowers102_r8_mae'


def test_a_leaf_per_method_stands_for_19_tasks_by_3_pre_trainings():
    sizes = SIZES | {method: size for method, (size, _) in FURTHER.items()}
    leaves = {f'vit_{method}_vtab{size}' for method, size in sizes.items()}
    assert {p.stem for p in (CONFIGS / 'vtab1k').iterdir() if p.suffix} == leaves and len(leaves) == 8 + 14
    assert all(len(p.read_text().splitlines()) <= 12 for p in CONFIGS.glob('vtab1k/*.py'))
    names = {name_of(m, t, p) for m in sizes for t in CLASSES for p in PRETRAINED}
    assert names == {n for n in experiments(CONFIGS) if '_vtab' in n} and len(names) == 22 * 57


@pytest.fixture(scope='module')
def flowers() -> dict:
    """LoRA on one task, put together by mmengine alone."""
    data = dict(data_root='data/vtab1k/oxford_flowers102', num_classes=102)
    file = 'mae_pretrain_vit_base.pth'
    base = dict(file=f'data/weights/{file}', url=f'https://dl.fbaipublicfiles.com/mae/pretrain/{file}')
    cfg = Config.fromfile(CONFIGS / 'vtab1k/vit_lora_vtab_r8.py')
    model = dict(base=dict(base, convert='timm_vit'), head=dict(num_classes=102))
    cfg.merge_from_dict(dict(num_classes=102, _data=data, model=model))
    cfg.merge_from_dict({f'{part}_dataloader.dataset': data for part in ('train', 'val', 'test')})
    return {k: v for k, v in cfg.to_dict().items() if k not in ('vtab_tasks', 'vtab_pretrains')}


SPELLED = (LORA, f'configs/vtab1k/{LORA}.py', f'configs/vtab1k/{LORA}', f'configs/{LORA}.py', f'{CONFIGS}/{LORA}.py')


@pytest.mark.parametrize('given', SPELLED)
def test_an_experiment_has_its_own_name_however_it_is_spelled(given, flowers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(given)
    assert cfg.to_dict() == flowers and cfg.filename == f'{CONFIGS}/vtab1k/{LORA}.py'
    cfg.dump('dumped.py')  # as a run leaves it
    assert load_config('dumped.py').to_dict() == flowers
    assert prepare(given, Options()).work_dir == f'work_dirs/{LORA}'


def test_a_config_that_inherits_sets_both_words_or_has_them_in_its_name(flowers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = f"_base_ = '{CONFIGS}/vtab1k/vit_lora_vtab_r8.py'\n"
    Path('flowers.py').write_text(f"{text}vtab_task = 'flowers102'\nvtab_pretrain = 'mae'\n")
    assert load_config('flowers.py').to_dict() == flowers
    own = 'model = dict(head=dict(num_classes=7))\ntrain_dataloader = dict(dataset=dict(data_root="/mine"))\n'
    Path('own_vtab.py').write_text(text + own)
    cfg = load_config('own_vtabdtd_in21k.py')
    assert cfg.model.head.num_classes == 7 and cfg.num_classes == cfg.test_dataloader.dataset.num_classes == 47
    assert [cfg[f'{part}_dataloader'].dataset.data_root for part in ('train', 'test')] == ['/mine', 'data/vtab1k/dtd']
    assert cfg.model.base.convert == 'google_vit' and cfg.filename == 'own_vtabdtd_in21k.py'
    assert call('count_params', 'own_vtabdtd_in21k', '--json') == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row['config'] == 'own_vtabdtd_in21k' and row['trainable'] == 12 * 4 * 768 * 8 + 769 * 7


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ('vit_lora_vtabdtdd_r8_mae', 'Nearest: vit_lora_vtabdtd_r8_mae.py'),
        ('configs/vtab1k/vit_lora_vtabflower102_r8_mae.py', f'Nearest: configs/vtab1k/{LORA}.py'),
        ('configs/vit_fc_vtaboxfordiiitpet_mae', 'configs/vit_fc_vtabiiitpet_mae.py'),
        ('own_vtabdtdd_mae', 'Nearest: own_vtabdtd_mae.py'),
        ('vit_lora_vtabdtd_r8_mocov2', 'Nearest: vit_lora_vtabdtd_r8_mocov3.py'),
        ('configs/vtab1k/vit_lora_vtab_r8.py', 'has no vtab_task: .* vit_lora_vtabdtd_r8_in21k, .*; valid: cifar, '),
        ('kitti.py', 'kitti.py has no vtab_pretrain: .*; valid: in21k, mae, mocov3'),
        ('wrong.py', "Unknown vtab_task in wrong.py 'dtdd'.* Did you mean 'dtd'"),
        ('worse.py', "Unknown vtab_pretrain in worse.py 'mocov2'.* Did you mean 'mocov3'"),
    ],
)
def test_a_wrong_or_missing_word_gets_a_sentence_with_the_nearest(given, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONFIGS, 'configs')
    Path('own_vtab.py').write_text("_base_ = 'configs/vtab1k/vit_lora_vtab_r8.py'\n")
    Path('kitti.py').write_text("_base_ = 'own_vtab.py'\nvtab_task = 'kitti'\n")
    Path('wrong.py').write_text("_base_ = 'own_vtab.py'\nvtab_task = 'dtdd'\n")
    Path('worse.py').write_text("_base_ = 'kitti.py'\nvtab_pretrain = 'mocov2'\n")
    with pytest.raises(UserError, match=said):
        load_config(given)
    assert refused(capsys, 'count_params', given).count('\n') == 1


def test_every_method_trains_what_it_is_known_for_and_a_plain_head():
    ends = [(task, p) for task in ('patch_camelyon', 'sun397') for p in PRETRAINED]
    wanted = {name_of(m, t, p): count + 769 * CLASSES[t] for m, count in WITHOUT_HEAD.items() for t, p in ends}
    assert trainable([name_of(m, *end) for m in SIZES for end in ends], CONFIGS) == wanted, "SPT's is left out"
    further = {name_of(m, t, p): count + 769 * CLASSES[t] for m, (_, count) in FURTHER.items() for t, p in ends}
    assert trainable([name_of(m, *ends[0]) for m in FURTHER], CONFIGS).items() <= further.items()
    shown, wanted = {n: count for n, count in readme_counts().items() if '_vtab' in n}, wanted | further
    assert len(shown) == 2 * len(WITHOUT_HEAD | FURTHER) and shown.items() <= wanted.items(), 'stale: --docs'


@pytest.mark.parametrize('method', ['full', 'bitfit', 'lora', 'adaptformer'])
def test_vectors_are_free_of_weight_decay(method):
    cfg = load_config(name_of(method, 'kitti'))
    model = build_model(cfg, meta=True)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    assert decays == {id(p): 0.0 if p.ndim == 1 else 1e-4 for p in model.parameters() if p.requires_grad}
    assert {group['lr'] for group in groups} == {1e-3} and {0.0, 1e-4} == {*decays.values()}


@pytest.mark.parametrize('pretrain', PRETRAINED)
@pytest.mark.parametrize('method', SIZES)
def test_a_leaf_keeps_spts_recipe(method, pretrain):
    cfg = load_config(name_of(method, 'kitti', pretrain))
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=1e-4)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 100
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 10 and cfg.param_scheduler[1].eta_min == 0
    assert all(s.convert_to_iter_based for s in cfg.param_scheduler)
    assert cfg.train_dataloader.batch_size == 64 and cfg.recipe_gpus == 1 and 'auto_scale_lr' not in cfg
    model = cfg.model
    assert model.backbone.drop_path_rate == 0.1 and model.backbone.qkv_bias and model.head.bn is False
    assert model.data_preprocessor.mean == [123.675, 116.28, 103.53] and model.backbone.img_size == 224
    assert model.base.convert == dict(in21k='google_vit', mae='timm_vit', mocov3='mocov3')[pretrain]
    assert model.base.url.startswith('https://')
    steps = cfg.train_dataloader.dataset.pipeline
    assert [s.type for s in steps] == ['LoadImageFromFile', 'NumpyToPIL', 'torchvision/Resize', 'PackInputs']
    assert steps[2].size == [224, 224] and steps[2].interpolation == 'bicubic'
    assert cfg.test_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline == steps
    assert cfg.holdout == dict(fraction=0.0, seed=0)
    if 'spt' in method:
        assert model.petl.spt.budget == ['0.2M', '0.4M', '0.6M', '0.8M', '1.0M'] and model.petl.spt.rank == 8


# what the papers have in place of SPT's rate, weight decay, last rate, images a step and epochs
RECIPES = dict(
    ssf=(5e-3, 5e-5, 1e-8, 64, 100),
    **dict.fromkeys(('repadapter', 'facttt', 'facttk', 'convpass'), (1e-3, 1e-4, 1e-5, 64, 100)),
    dtl=(1e-3, 0.05, 0, 32, 110),
)


@pytest.mark.parametrize('method', FURTHER)
def test_a_leaf_of_a_further_paper_has_its_recipe(method):
    cfg = load_config(name_of(method, 'kitti'))
    lr, decay, last, batch, epochs = RECIPES.get(method, (1e-3, 1e-4, 0, 64, 100))
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=decay)
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == 10 and (cosine.end, cosine.eta_min) == (epochs, last)
    assert cosine.T_max == epochs - 10 and cfg.train_cfg.max_epochs == epochs
    assert cfg.train_dataloader.batch_size == batch and cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53] and cfg.model.head.bn is False


def test_veras_vectors_learn_ten_times_as_fast_as_the_head():
    cfg = load_config(name_of('vera', 'kitti'))
    model = build_model(cfg, meta=True)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(p): (round(g['lr'], 9), g['weight_decay']) for g in groups for p in g['params']}
    wanted = {n: (1e-2, 0) if 'deltas' in n else (1e-3, 1e-4 * (p.ndim > 1)) for n, p in model.named_parameters()}
    assert {n: rates[id(p)] for n, p in model.named_parameters() if p.requires_grad} == {
        n: wanted[n] for n, p in model.named_parameters() if p.requires_grad
    }


# q, k, v, proj, fc1 and fc2 of each block by rank 8; the vectors of the blocks and of the last norm are 121,344
SPT_LORA = 12 * (4 * (768 + 768) * 8 + 2 * (768 + 3072) * 8)
SPT_ADAPTER = 12 * (5 * (2 * 768 * 8 + 8 + 768) + (2 * 3072 * 8 + 8 + 3072))


@pytest.mark.parametrize(
    ('method', 'kind', 'updates'), [('sptlora', 'LoRA', SPT_LORA), ('sptadapter', 'AdaptMLP', SPT_ADAPTER)]
)
def test_an_spt_leaf_builds_with_its_file(method, kind, updates, tmp_path):
    plain = build_model('vit_fc_vtabkitti_mocov3', meta=True).backbone
    cost = Settings(kind, 8).cost
    rows = tuple(
        UnitAllocation(u.name, u.kind, u.block, list(u.shape), 'structured' if u.is_matrix else 'whole', cost(u), 1.0)
        for u in units_of(plain)
    )
    made = dict(
        config='x', options={}, rule='closest', alpha=10, beta=5, tau=1, seed=0, batches=1, samples=1, loss=1.0
    )
    params = sum(r.params for r in rows)
    chosen = Allocation(host_of(plain), kind, 8, 400_000, params, False, rows, None, None, made, {})
    write_allocation(tmp_path / 'spt.safetensors', chosen)
    options = {'model.petl.spt.file': str(tmp_path / 'spt.safetensors')}
    model = build_model(name_of(method, 'kitti', 'mocov3'), options, meta=True)
    assert model.plan.count()['trainable'] == updates + 121_344 + 769 * 4
