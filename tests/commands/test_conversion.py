"""The converter's command: what it prints and writes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from convert_command import call, timm, write, write_config
from references import REFERENCES, Reference, features, model_config, stored, swin2d
from safetensors.torch import load_file

from tools import REPO
from vpetl_mm.commands.conversion import convert

REAL = REPO.parent / 'shared/data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors'
pytestmark = pytest.mark.usefixtures('elsewhere')


def test_as_a_command():
    reference = REFERENCES['dinov2']()
    source = stored(reference, Path('src.safetensors'))
    argv = [sys.executable, REPO / 'tools/convert_checkpoint.py', source, 'new/dst.safetensors']
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for part in ('dinov2: ', 'mmpretrain.VisionTransformer', sha256, "base=dict(file='new/dst.safetensors')"):
        assert part in done.stdout
    backbone = eval(done.stdout.split('backbone=')[1].split(',\n')[0], dict(dict=dict))
    assert backbone.pop('_delete_'), 'it replaces the one that a config inherits'
    config = model_config(backbone, reference, dict(file='new/dst.safetensors'))
    torch.testing.assert_close(features(config, reference.x), reference.features, atol=1e-5, rtol=1e-5)


def test_what_was_dropped_is_printed(capsys):
    for key, value in REFERENCES['mocov3']().state.items():
        assert key.startswith('module.') and value.numel()
    write({'state_dict': REFERENCES['mocov3']().state, 'optimizer': {}, 'epoch': 300, '\x1b[2J': 1}, 'vit.pth.tar')
    assert call('vit.pth.tar', 'dst.safetensors') == 0
    out = capsys.readouterr().out
    beside = r'beside the weights: optimizer, epoch, \x1b[2J'
    assert all(part in out for part in ('mocov3', 'momentum encoder', "pre-training's predictor", 'head', beside))


def test_another_kind_may_be_given(capsys):
    """A MAE encoder without its decoder has timm's names; who knows better says so."""
    assert call(write(timm()), 'dst.safetensors', '--kind', 'mae') == 0
    assert 'mae: ' in capsys.readouterr().out


def test_the_real_vit():
    if not REAL.is_file():
        pytest.skip('shared/data is not here')
    assert call(REAL, 'dst.safetensors') == 0
    ours, theirs = load_file('dst.safetensors'), load_file(REAL)
    assert len(ours) == len(theirs) and {t.dtype for t in ours.values()} == {torch.float32}
    assert torch.equal(ours['backbone.layers.7.attn.gamma1.weight'], theirs['blocks.7.ls1.gamma'].float())
    assert torch.equal(ours['backbone.layers.11.ffn.layers.1.weight'], theirs['blocks.11.mlp.fc2.weight'].float())
    arch = dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=112, patch_size=14, layer_scale_init_value=1e-5)
    reference = Reference('timm_vit', {}, torch.randn(1, 3, 112, 112), torch.zeros(1, 384), 6)
    bases = dict(file='dst.safetensors'), dict(file=str(REAL), convert='timm_vit')
    converted, direct = (features(model_config(backbone, reference, base), reference.x) for base in bases)
    torch.testing.assert_close(converted, direct, atol=0, rtol=0)


def killed(*_: object) -> None:
    """Replaces a step: the process ends there."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('step', ['weights.files.save_file', 'files.os.replace'])
def test_killed_it_leaves_what_was_there(monkeypatch, step):
    """While the new file is written, and when it is complete and not yet in its place."""
    write(timm())
    Path('dst.safetensors').write_bytes(b'what was there')
    monkeypatch.setattr(f'vpetl_mm.{step}', killed)
    argv, options = ('src.pth', 'dst.safetensors'), dict(force=True)
    child = multiprocessing.get_context('fork').Process(target=convert, args=argv, kwargs=options)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert Path('dst.safetensors').read_bytes() == b'what was there'


def test_a_2d_swin_is_fitted_to_the_window_of_the_config():
    config = tiny.config(depths=(1, 1, 2, 1), window_size=(2, 5, 5), patch_size=(4, 4, 4))
    assert call(write(swin2d().state), 'dst.safetensors', '--config', write_config(config)) == 0
    state = load_file('dst.safetensors')
    assert state['backbone.layers.0.blocks.0.attn.relative_position_bias_table'].shape == (3 * 81, 2)
    assert state['backbone.patch_embed.proj.weight'].shape == (16, 3, 4, 4, 4)


def test_parameters_and_other_layouts_are_weights_too():
    state, key = timm(), 'blocks.0.mlp.fc1.weight'
    state['cls_token'] = torch.nn.Parameter(state['cls_token'])
    state[key] = state[key].T.contiguous().T
    assert call(write(state), 'dst.safetensors') == 0
    assert torch.equal(load_file('dst.safetensors')['backbone.layers.0.ffn.layers.0.0.weight'], timm()[key])


def test_a_key_beside_the_weights_does_not_hide_one_of_them():
    write(dict(model=timm(), cls_token=3))
    keys = convert('src.pth', 'dst.safetensors').origin.keys
    assert keys['cls_token']['to'] == 'backbone.cls_token'
