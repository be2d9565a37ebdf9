"""Every kind, converted and built from a config, has the features of its reference.

timm's were written by tests/weights/make_timm_references.py. The errors by kind, as in docs/weights.md:
``pytest tests/weights/test_kinds.py -rP | grep 'largest error'``.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from convert_command import load, write_config
from references import REFERENCES, adaptformer, converted, features, model_config
from safetensors import safe_open

from vpetl_mm.weights.kinds import KINDS

SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.npz')


@pytest.mark.parametrize(('name', 'suffix'), zip(REFERENCES, SUFFIXES * 4, strict=False))
def test_features(tmp_path, name, suffix):
    torch.manual_seed(1)
    reference = REFERENCES[name]()
    conversion, dst = converted(reference, tmp_path, suffix)
    assert conversion.origin.kind == reference.kind
    ours = features(model_config(conversion.backbone, reference, dict(file=str(dst))), reference.x)
    error = (ours - reference.features).abs().max().item()
    print(f'largest error {error:.1e} of features up to {reference.features.abs().max():.1f}: {name}, {suffix}')
    torch.testing.assert_close(ours, reference.features, atol=1e-5, rtol=1e-5)


def test_every_kind_has_a_reference():
    assert {REFERENCES[name]().kind for name in REFERENCES} == set(KINDS)


@pytest.mark.parametrize('name', REFERENCES)
def test_every_key_has_a_fate(tmp_path, name):
    reference = REFERENCES[name]()
    _, dst = converted(reference, tmp_path)
    with safe_open(dst, 'pt') as file:
        record, names = json.loads(file.metadata()['vpetl_mm']), set(file.keys())
        assert all(file.get_slice(k).get_dtype() == 'F32' for k in names)
    assert set(record['keys']) == {*reference.state, 'epoch'}
    went = {fate['to'] for fate in record['keys'].values() if 'to' in fate}
    assert went | set(record['made']) == names and all(k.startswith('backbone.') for k in names)
    assert all(fate.get('to') or fate['dropped'] for fate in record['keys'].values())
    assert record['kind'] == reference.kind and record['host'] == KINDS[reference.kind].host


@pytest.mark.parametrize('name', ['video_swin', 'swin2d', 'videomae, pre-trained', 'mocov3', 'google_vit'])
def test_a_config_may_name_the_official_file_as_well(tmp_path, name):
    """``convert`` of model.base and the command are one implementation."""
    reference = REFERENCES[name]()
    conversion, dst = converted(reference, tmp_path)
    bases = dict(file='src.pth', convert=reference.kind), dict(file=str(dst))
    direct, after = (load(reference, conversion.backbone, **base).backbone.state_dict() for base in bases)
    assert direct.keys() == after.keys() and all(torch.equal(direct[k], after[k]) for k in direct)


def test_an_image_of_another_size(tmp_path):
    """A converted ViT is resized when it is loaded; the reference is the host's own way with larger images."""
    reference = adaptformer()
    conversion, dst = converted(reference, tmp_path)
    native = model_config(conversion.backbone, reference, dict(file=str(dst)))
    x = torch.randn(2, 3, 48, 48)
    larger = model_config(conversion.backbone | dict(img_size=48), reference, dict(file=str(dst)))
    torch.testing.assert_close(features(larger, x), features(native, x), atol=1e-5, rtol=1e-5)


def test_fitted_to_a_config(tmp_path):
    """--config resizes once and for all, with the same result, and the record says so."""
    reference = adaptformer()
    conversion, dst = converted(reference, tmp_path)
    config = model_config(conversion.backbone | dict(img_size=48), reference, dict(file=str(dst)))
    x = torch.randn(2, 3, 48, 48)
    expected = features(config, x)
    fitted, _ = converted(reference, tmp_path, config=write_config(config), force=True)
    torch.testing.assert_close(features(config, x), expected, atol=1e-6, rtol=1e-6)
    assert fitted.tensors['backbone.pos_embed'].shape == (1, 37, 32)
    assert fitted.origin.keys['pos_embed']['how'] == 'renamed; resized from 1x17x32 to 1x37x32'
    assert fitted.origin.config == 'config.py'


def test_half_precision_becomes_single(tmp_path):
    reference = adaptformer()
    half = replace(reference, state={k: v.half() for k, v in reference.state.items()})
    conversion, dst = converted(half, tmp_path)
    assert {t.dtype for t in conversion.tensors.values()} == {torch.float32}
    ours = features(model_config(conversion.backbone, half, dict(file=str(dst))), half.x)
    torch.testing.assert_close(ours, reference.features, atol=2e-2, rtol=2e-2)
