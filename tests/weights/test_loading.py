"""What a converted file still says when it is loaded, and what a config refuses of any file."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from convert_command import call, refused, timm, write
from references import REFERENCES, model_config

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.conversion import Options, convert


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)


def load(reference, told: dict, base: dict, **backbone) -> None:
    """Build a model on ``base``, its backbone changed."""
    build_model(model_config({**told, **backbone}, reference, base), init_weights=True)


def test_the_heads_that_a_source_tells_go_with_the_file():
    reference = REFERENCES['google_vit']()
    np.savez('src.npz', **{k: v.numpy() for k, v in reference.state.items()})
    told = convert('src.npz', 'dst.safetensors', Options()).backbone
    heads = told['arch']['num_heads']
    load(reference, told, dict(file='dst.safetensors'))
    other = dict(told['arch'], num_heads=2 * heads)
    for base in (dict(file='dst.safetensors'), dict(file='src.npz', convert='google_vit')):
        with pytest.raises(UserError, match=f'its attention has {heads} heads'):
            load(reference, told, base, arch=other)


def test_what_is_not_finite_is_refused_by_a_config_too():
    config = tiny.config()
    model = build_model(config, init_weights=True)
    state = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    key = next(k for k in state if k.endswith('fc1.weight'))
    state[key][0, 0] = float('nan')
    torch.save(state, 'base.pth')
    with pytest.raises(UserError, match=f'{key} holds numbers that are not finite'):
        build_model(tiny.config(base=dict(file='base.pth')), init_weights=True)


def test_a_norm_of_another_kind_is_no_part_of_a_conversion(capsys):
    state = {k.replace('norm.', 'fc_norm.') if k.startswith('norm.') else k: v for k, v in timm().items()}
    told = convert(write(timm()), 'plain.safetensors', Options()).backbone
    config = model_config(told, REFERENCES['timm_vit'](), None)
    lines = [f'{key} = {value!r}' for key, value in config.items()]
    with open('config.py', 'w') as file:
        file.write('\n'.join(lines))
    said = refused(capsys, write(state, 'pooled.pth'), 'dst.safetensors', '--config', 'config.py')
    assert 'its last norm is one behind the mean of the patches' in said


def test_a_file_that_a_config_resized_is_for_that_size():
    reference = REFERENCES['timm_vit']()
    told = convert(write(timm()), 'plain.safetensors', Options()).backbone
    larger = dict(told, img_size=2 * told['img_size'])
    config = model_config(larger, reference, None)
    with open('config.py', 'w') as file:
        file.write('\n'.join(f'{key} = {value!r}' for key, value in config.items()))
    assert call('src.pth', 'large.safetensors', '--config', 'config.py') == 0
    load(reference, larger, dict(file='large.safetensors'))
    load(reference, larger, dict(file='plain.safetensors'))
    with pytest.raises(UserError, match=r'converted for the image size of config.py'):
        load(reference, told, dict(file='large.safetensors'))


@pytest.mark.parametrize(('kind', 'said'), [('dinov2', 'no LayerScale'), ('miil', 'a bias in qkv')])
def test_a_kind_that_the_file_is_not(capsys, kind, said):
    assert said in refused(capsys, write(timm()), 'dst.safetensors', '--kind', kind)


@pytest.mark.parametrize('value', [torch.zeros(1).expand(10**13), torch.zeros(2, device='meta')])
def test_a_few_bytes_that_stand_for_much(capsys, value):
    assert 'head.weight' in refused(capsys, write(timm() | {'head.weight': value}), 'dst.safetensors')


def test_a_key_beside_the_weights_does_not_hide_one_of_them():
    write(dict(model=timm(), cls_token=3))
    record = convert('src.pth', 'dst.safetensors', Options()).record
    assert record.keys['cls_token']['to'] == 'backbone.cls_token'


def test_a_name_that_no_file_can_have(capsys):
    write(timm())
    for argv in (('x' * 300 + '.pth', 'dst.safetensors'), ('src.pth', 'x' * 300 + '.safetensors')):
        assert 'File name too long' in refused(capsys, *argv)
