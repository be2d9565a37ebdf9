"""tools/host.py: what it finds in models, what it proposes, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
import transformers

from tools import call, refused
from vpetl_mm.petl import LAYOUTS

SMALL = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32)


@pytest.fixture(autouse=True)
def _table_of_its_own():
    before = dict(LAYOUTS)
    yield
    LAYOUTS.clear()
    LAYOUTS.update(before)


def told(capsys, *argv: object) -> str:
    assert call('host', *argv) == 0
    return capsys.readouterr().out


def numbers(text: str) -> dict[str, int]:
    """The lines that end in a number."""
    return {
        name.strip(): int(n.replace(',', '')) for name, n in re.findall(r'^(\S.*?) +([\d,]+)$', text, re.MULTILINE)
    }


def test_a_model_of_timm(capsys):
    """DINOv3's ViT-B: what it has as the paper and timm say, and what methods take by their own formulas."""
    text = told(capsys, 'timm/vit_base_patch16_dinov3.lvd1689m')
    for fact in (
        'Eva',
        'timm.Eva',
        '12: blocks.0 to blocks.11 (EvaBlock), width 768',
        'one layer, 768 to 2304; no bias',
    ):
        assert fact in text
    found, d = numbers(text), 768
    assert found['attn.qkv'] == 12 * 3 * d * d and found['mlp.fc1'] == 12 * 4 * d * (d + 1)
    assert found['PATT'] == 12 * (3 * 64 * d + 64 + 2 * d) and found['AdaptMLP'] == 12 * (2 * 64 * d + 64 + d)
    assert found['LoRA at fc2'] == 12 * 16 * 5 * d and found['Prompt'] == 12 * 10 * d
    assert 'Prompt, deep=False' not in found and 'Prompt with deep=True fits' in text
    with torch.device('meta'):
        model = timm.create_model('vit_base_patch16_dinov3')
    assert found['all'] == sum(p.numel() for p in model.parameters())
    assert found['layer_scale'] == sum(p.numel() for n, p in model.named_parameters() if 'gamma' in n)


def test_a_model_of_transformers_by_type_class_and_folder(capsys, tmp_path):
    for name, layout in {'videomae': 'transformers.VideoMAEModel', 'ViTModel': 'transformers.ViTModel'}.items():
        text = told(capsys, name)
        assert layout in text and 'three layers, seen as one, 768 to 2304' in text
    config = dict(transformers.DINOv3ViTConfig(**SMALL, patch_size=8).to_dict(), model_type='dinov3_vit')
    (tmp_path / 'config.json').write_text(json.dumps(config))
    assert numbers(told(capsys, tmp_path))['PATT'] == 2 * (3 * 64 * 24 + 64 + 48)


def test_an_experiment(capsys):
    text = told(capsys, 'swin_bapat_ssv2_b128')
    found = numbers(text)
    assert 'mmaction.SwinTransformer3D at backbone' in text
    assert (found['bias'], found['attn.rpb'], found['head']) == (137_216, 953_160, 178_350)
    assert found['AdaptMLP'] == 1_553_664 and found['LoRA at qkv'] == 770_048


def test_a_proposal_is_tried_and_works_when_it_is_pasted(capsys, tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text((Path(__file__).parents[1] / 'own_models.py').read_text())
    monkeypatch.chdir(tmp_path)
    text = told(capsys, 'mine:OwnViT', '--input', '3x32x32')
    assert 'tried: a gradient reaches all of them' in text and numbers(text)['LoRA at qkv'] == 2 * 16 * 2 * 32
    code = text[text.index('from vpetl_mm.petl') : text.index('  - ')]
    del LAYOUTS['mine.OwnViT']
    exec(code, {})
    assert 'mine.OwnViT' in LAYOUTS
    assert "post_norm=('PostNormBlock',)" in told(capsys, 'mine:PostNormViT', '--input', '3x32x32')
    assert 'post_norm' not in told(capsys, 'mine:PostNormViT'), 'nobody says what it takes'


def test_a_model_is_tried_on_request(capsys):
    text = told(capsys, 'test_vit', '--try')
    assert 'tried: a gradient reaches all of them' in text and 'left out' not in text
    broken = told(capsys, 'test_vit', '--try', '--input', '3x100x100')
    assert 'The model was not tried: it does not run without values' in broken


REFUSED = {
    'a name of timm': (('vit_base_patch16_dinov4',), "Did you mean 'vit_base_patch16_dinov3'?"),
    'a type': (('vjepa3',), "Did you mean 'vjepa2'?"),
    'an experiment': (('configs/swin_bapat_ssv2_b12.py',), 'swin_bapat_ssv2_b128'),
    'a name of the hub': (('facebook/nothing',), 'not in the cache of Hugging Face'),
    'a module': (('nowhere:Model',), 'nowhere:Model cannot be imported'),
    'an attribute': (('timm:Model',), 'timm:Model cannot be imported'),
    'what it makes': (('builtins:dict',), 'builtins:dict returns a dict, not an nn.Module'),
    'what it needs': (('torch.nn:Linear',), 'torch.nn:Linear cannot be built'),
    'no transformer': (('resnet18',), 'no entry can be proposed: no repeated block holds an attention'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_it_refuses(case, capsys, elsewhere):
    argv, words = REFUSED[case]
    error = refused(capsys, 'host', *argv)
    assert words in error and error.count('\n') == 1
