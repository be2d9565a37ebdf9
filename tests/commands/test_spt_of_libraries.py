"""SPT from the command line on models of timm and of transformers: measured, trained, packed and merged."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open
from small_vtab import write_config

import tools
from vpetl_mm.spt.allocation import read_allocation

SIZES = (
    'hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8'
)
BACKBONES = {
    'timm': "dict(_delete_=True, type='TimmBackbone', model='vit_tiny_patch16_224', img_size=16, "
    'options=dict(embed_dim=16, depth=2, num_heads=2, patch_size=8, mlp_ratio=2))',
    'transformers': f"dict(_delete_=True, type='HFBackbone', config=dict(model_type='vit', {SIZES}))",
}


def config(task: Path, kind: str) -> Path:
    """SPT-LoRA on the task, all of whose weights start at random."""
    preprocessor = 'dict(_delete_=True, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)'
    extra = (
        "model['petl'] = dict(spt=dict(file='spt.safetensors', rank=2, budget=None))\n"
        f"model['backbone'] = {BACKBONES[kind]}\nmodel['data_preprocessor'] = {preprocessor}\n"
    )
    return write_config(task, Path('small.py'), extra=extra)


@pytest.mark.parametrize('kind', BACKBONES)
def test_measured_trained_and_merged(kind, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = config(task, kind)
    assert tools.call('sensitivity', file, '--budget', '700', '--batches', '2', '--batch-size', '8') == 0
    allocation = read_allocation(Path('spt.safetensors'))
    assert 0 < allocation.params <= 700 and {row.kind for row in allocation.rows} >= {*'qkv', 'proj', 'fc1', 'fc2'}
    assert tools.call('train', file, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    (bundle,) = Path('work_dirs/small').glob('*.safetensors')
    picture = next((task / 'images').rglob('*.png'))
    assert tools.call('export', bundle, 'plain.safetensors', '--check', picture) == 0
    with safe_open('plain.safetensors', 'pt') as opened:
        names = {*opened.keys()}
    assert not any('.deltas.' in name for name in names) and any(
        f'backbone.{allocation.rows[0].name}' in n for n in names
    )
