"""Converted files: what they record, what a config checks of them, and that older ones load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tiny
import torch
from convert_command import call, load, timm, write
from references import REFERENCES, adaptformer, converted, features, model_config, of_timm, video_swin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.conversion import convert
from vpetl_mm.config import load_config
from vpetl_mm.preparation.next_steps import own_config
from vpetl_mm.weights.converted import recorded_inputs
from vpetl_mm.weights.kinds import KINDS

CONFIGS = Path(__file__).parents[2] / 'configs'
# mean and std of the inputs as published, on the scale of 0 to 1
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5] * 3, [0.5] * 3
NONE = [0.0] * 3, [1.0] * 3
SWINS, VITS = ('video_swin', 'mmaction_swin', 'swin2d'), ('dinov2', 'mae', 'mocov3', 'videomae', 'mmaction_videomae')
PUBLISHED = dict.fromkeys((*SWINS, *VITS), IMAGENET)
PUBLISHED |= dict(google_vit=HALF, miil=NONE, timm_vit=None, mmpretrain_vit=None)


def record() -> dict:
    with safe_open('dst.safetensors', 'pt') as file:
        return json.loads(file.metadata()['vpetl_mm'])


# The record as a base


def test_the_record_wins_over_convert(tmp_path):
    reference = video_swin()
    conversion, dst = converted(reference, tmp_path)
    base = dict(file=str(dst), convert='video_swin')
    ours = features(model_config(conversion.backbone, reference, base), reference.x)
    torch.testing.assert_close(ours, reference.features, atol=1e-5, rtol=1e-5)


def test_sha256_of_the_file_or_of_its_source(tmp_path):
    reference = adaptformer()
    conversion, dst = converted(reference, tmp_path)
    for file in (dst, tmp_path / 'src.pth'):
        load(reference, conversion.backbone, file=str(dst), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(UserError, match='SHA-256'):
        load(reference, conversion.backbone, file=str(dst), sha256='0' * 64)


def test_a_converted_file_of_another_host_is_refused(tmp_path):
    _, dst = converted(adaptformer(), tmp_path)
    with pytest.raises(UserError, match=r'converted for mmpretrain\.VisionTransformer.*SwinTransformer3D'):
        build_model(tiny.config(base=dict(file=str(dst))), init_weights=True)


@pytest.mark.parametrize('text', ['no JSON', '{}', '[]', '{"format": 99}', 'null'])
def test_a_record_that_cannot_be_read_is_refused(text):
    save_file({'backbone.a': torch.ones(1)}, 'dst.safetensors', {'vpetl_mm': text})
    with pytest.raises(UserError, match='record'):
        build_model(tiny.config(base=dict(file='dst.safetensors')), init_weights=True)


# Mean and std of the inputs


@pytest.mark.parametrize('kind', KINDS)
def test_inputs_are_recorded_and_printed(kind, capsys):
    name = next(n for n in REFERENCES if n.partition(',')[0] == kind)
    write(REFERENCES[name]().state)
    assert call('src.pth', 'dst.safetensors', '--kind', kind) == 0
    recorded, out = record()['inputs'], capsys.readouterr().out
    if PUBLISHED[kind] is None:
        assert recorded is None and 'ARE IN NO TENSOR' in out and 'data_preprocessor=' not in out
        return
    printed = eval(out.partition('data_preprocessor=')[2].partition(',\n')[0], dict(dict=dict))
    for values, published in zip((recorded['mean'], recorded['std']), PUBLISHED[kind], strict=True):
        assert values == pytest.approx([255 * v for v in published])
    assert recorded.pop('channels') == 'RGB' and {k: printed[k] for k in ('mean', 'std')} == recorded


def test_own_images_on_another_base(capsys, warned):
    """What prepare_data prints, and what the converter prints for DINOv2 in it: DINOv2's mean and std, no warning."""
    write(of_timm('dinov2').state)
    assert call('src.pth', 'dst.safetensors') == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('    ') and line.endswith('),')]
    assert [line.strip().partition('=')[0] for line in lines] == ['base', 'backbone', 'data_preprocessor']
    text = own_config(dict(kind='image', classes=3), 'data/mine').replace("'../", f"'{CONFIGS}/")
    text = text.replace('model = dict(', 'model = dict(\n' + '\n'.join(lines))
    Path('own.py').write_text(text.replace('num_classes=3)', 'num_classes=3, in_channels=16)'))
    model = build_model('own.py', init_weights=True)
    mean, std = (t.flatten().tolist() for t in (model.data_preprocessor.mean, model.data_preprocessor.std))
    assert (mean, std) == tuple(pytest.approx([255 * v for v in published], rel=1e-5) for published in IMAGENET)
    assert not warned
    old = {'model.data_preprocessor': dict(mean=[0.0] * 3, std=[255.0] * 3)}
    build_model(load_config('own.py', old), init_weights=True)
    assert len(warned) == 1 and warned[0].count('\n') == 0
    values = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], [0.0] * 3, [255.0] * 3
    assert all(str(v) in warned[0] for v in values)


def test_no_normalisation_at_all_is_another_one(warned):
    reference = of_timm('dinov2')
    backbone = convert(write(reference.state), 'dst.safetensors').backbone
    load(reference, backbone, file='dst.safetensors')
    assert len(warned) == 1 and 'mean [0.0, 0.0, 0.0] and std [1.0, 1.0, 1.0]' in warned[0]


def test_files_that_record_none_load_as_before(warned):
    """Files from before there was such a record, and files of a kind that does not imply it."""
    reference = of_timm('dinov2')
    backbone = convert(write(reference.state), 'dst.safetensors').backbone
    old = record()
    del old['inputs']
    save_file(load_file('dst.safetensors'), 'old.safetensors', {'vpetl_mm': json.dumps(old)})
    for base in (dict(file='old.safetensors'), dict(file='src.pth', convert='dinov2')):
        load(reference, backbone, **base)
        assert recorded_inputs(base['file']) is None
    convert(write(timm()), 'dst.safetensors', force=True)
    assert recorded_inputs('dst.safetensors') is None and not warned


@pytest.mark.parametrize('inputs', ['mean', {'mean': [1.0]}, dict(mean=['a\nb'] * 3, std=[1.0] * 3), [1, 2]])
def test_a_record_of_something_else_is_refused(inputs):
    convert(write(timm()), 'dst.safetensors')
    wrong = dict(record(), inputs=inputs)
    save_file({'backbone.a': torch.ones(1)}, 'wrong.safetensors', {'vpetl_mm': json.dumps(wrong)})
    with pytest.raises(UserError, match='record'):
        recorded_inputs('wrong.safetensors')
