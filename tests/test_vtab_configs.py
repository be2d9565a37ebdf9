"""The configs of VTAB-1k: one of the 19 tasks is looked at closely, and the others are compared with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.optim import build_optim_wrapper

from vpetl_mm import build_model
from vpetl_mm.config import load_config
from vpetl_mm.measure.count import trainable
from vpetl_mm.petl import host_of
from vpetl_mm.spt.allocation import Allocation, UnitAllocation, write_allocation
from vpetl_mm.spt.choice import Settings
from vpetl_mm.spt.units import units_of

REPO = Path(__file__).parents[1]
VTAB = sorted((REPO / 'configs').glob('*_vtab*.py'))
VTAB_TASKS = """
cifar caltech101 dtd oxford_flowers102 svhn sun397 oxford_iiit_pet
patch_camelyon eurosat resisc45 diabetic_retinopathy
clevr_count clevr_dist dmlab kitti dsprites_loc dsprites_ori smallnorb_azi smallnorb_ele
"""


def test_each_method_and_pre_training_stands_for_the_19_tasks_of_vtab():
    methods = {re.sub(r'_vtab[a-z0-9]+', '_vtab', c.stem) for c in VTAB}
    sizes = dict(adaptformer='_b8', lora='_r8')
    assert methods == {
        f'vit_{m}_vtab{sizes.get(m, "")}_{p}'
        for m in ('sptlora', 'sptadapter', 'full', 'fc', 'bitfit', 'vpt', 'adaptformer', 'lora')
        for p in ('in21k', 'mae', 'mocov3')
    }
    tasks = [t.removeprefix('oxford_').replace('_', '') for t in VTAB_TASKS.split()]
    assert len(tasks) == 19 and len(VTAB) == 19 * 24
    for method in methods:
        text = (REPO / f'configs/{method.replace("_vtab", "_vtabkitti")}.py').read_text()
        assert 'kitti' in text and len(text.splitlines()) <= 12
        for task in tasks:
            other = REPO / f'configs/{method.replace("_vtab", f"_vtab{task}")}.py'
            assert other.read_text() == text.replace('vtabkitti', f'vtab{task}')


# what each trains on ViT-B beside the head, which has 769 parameters a class
WITHOUT_HEAD = dict(full=85_798_656, fc=0, bitfit=102_912, vpt=12 * 50 * 768)
WITHOUT_HEAD |= dict(adaptformer=12 * (2 * 768 * 8 + 8 + 768), lora=12 * 2 * 2 * 768 * 8)


def test_every_method_trains_what_it_is_known_for_and_a_plain_head():
    counts = trainable([c.stem for c in VTAB if 'patchcamelyon' in c.stem or 'sun397' in c.stem], REPO / 'configs')
    assert len(counts) == 2 * 3 * len(WITHOUT_HEAD), "SPT's is left out"
    for name, count in counts.items():
        classes = 2 if 'patchcamelyon' in name else 397
        assert count == WITHOUT_HEAD[name.split('_')[1]] + 769 * classes, name


def test_of_weight_decay_vectors_are_free():
    for name in ('full_vtabkitti', 'bitfit_vtabkitti', 'lora_vtabkitti_r8', 'adaptformer_vtabkitti_b8'):
        cfg = load_config(REPO / f'configs/vit_{name}_in21k.py')
        model = build_model(cfg, meta=True)
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {*decays} == {id(p) for p in trained}
        assert all(decays[id(p)] == (0.0 if p.ndim == 1 else 1e-4) for p in trained)
        assert {group['lr'] for group in groups} == {1e-3}
        assert {0.0, 1e-4} == {*decays.values()}


@pytest.mark.parametrize('path', [c for c in VTAB if 'vtabkitti' in c.stem], ids=lambda c: c.stem)
def test_a_leaf_keeps_spts_recipe(path):
    cfg = load_config(path)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=1e-4)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 100
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 10 and cfg.param_scheduler[1].eta_min == 0
    assert all(s.convert_to_iter_based for s in cfg.param_scheduler)
    assert cfg.train_dataloader.batch_size == 64 and cfg.recipe_gpus == 1 and 'auto_scale_lr' not in cfg
    model = cfg.model
    assert model.backbone.drop_path_rate == 0.1 and model.backbone.qkv_bias and model.head.bn is False
    assert model.data_preprocessor.mean == [123.675, 116.28, 103.53] and model.backbone.img_size == 224
    kind = dict(in21k='google_vit', mae='timm_vit', mocov3='mocov3')[path.stem.rpartition('_')[2]]
    assert model.base.convert == kind and model.base.url.startswith('https://')
    steps = cfg.train_dataloader.dataset.pipeline
    assert [s.type for s in steps] == [
        *('LoadImageFromFile', 'NumpyToPIL', 'torchvision/Resize', 'PackInputs'),
    ], 'nothing is augmented'
    assert steps[2].size == [224, 224] and steps[2].interpolation == 'bicubic'
    assert cfg.test_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline == steps
    assert cfg.holdout == dict(fraction=0.0, seed=0)
    if '_spt' in path.stem:
        assert model.petl.spt.budget == ['0.2M', '0.4M', '0.6M', '0.8M', '1.0M'] and model.petl.spt.rank == 8


# q, k, v, proj, fc1 and fc2 of each block by rank 8; the vectors of the blocks and of the last norm are 121,344
LORA = 12 * (4 * (768 + 768) * 8 + 2 * (768 + 3072) * 8)
ADAPTER = 12 * (5 * (2 * 768 * 8 + 8 + 768) + (2 * 3072 * 8 + 8 + 3072))


@pytest.mark.parametrize(
    ('method', 'kind', 'updates'), [('sptlora', 'LoRA', LORA), ('sptadapter', 'AdaptMLP', ADAPTER)]
)
def test_an_spt_leaf_builds_with_its_file(method, kind, updates, tmp_path):
    plain = build_model(REPO / 'configs/vit_fc_vtabkitti_mocov3.py', meta=True).backbone
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
    model = build_model(REPO / f'configs/vit_{method}_vtabkitti_mocov3.py', options, meta=True)
    assert model.plan.count()['trainable'] == updates + 121_344 + 769 * 4
