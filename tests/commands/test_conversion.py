"""The command and its file: what it prints and writes, and how a config's base reads it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from convert_command import TOOL, call, refused, timm, write
from references import REFERENCES, adaptformer, converted, features, model_config, swin, swin2d, video_swin
from safetensors.torch import load_file, save_file

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.conversion import Options, convert
from vpetl_mm.config import load_config

REAL = TOOL.parents[2] / 'shared/data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)


def ran(*argv: object) -> subprocess.CompletedProcess:
    """Python on ``argv``, in a process of its own."""
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)


# What it does


@pytest.mark.parametrize(('name', 'suffix'), [('timm_vit', 'pth'), ('dinov2', 'safetensors'), ('google_vit', 'npz')])
def test_as_a_command(name, suffix):
    reference = REFERENCES[name]()
    arrays = {k: v.numpy() for k, v in reference.state.items()}
    source = f'src.{suffix}'
    {
        'pth': lambda: torch.save(reference.state, source),
        'safetensors': lambda: save_file(reference.state, source),
        'npz': lambda: np.savez(source, **arrays),
    }[suffix]()
    done = ran(TOOL, source, 'new/dst.safetensors')
    assert (done.returncode, done.stderr) == (0, '')
    sha256 = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    for part in (f'{name}: ', 'mmpretrain.VisionTransformer', sha256, "base=dict(file='new/dst.safetensors')"):
        assert part in done.stdout
    backbone = eval(done.stdout.split('backbone=')[1].split(',\n')[0], dict(dict=dict))
    assert backbone.pop('_delete_'), 'it takes the place of the one that a config inherits'
    config = model_config(backbone, reference, dict(file='new/dst.safetensors'))
    torch.testing.assert_close(features(config, reference.x), reference.features, atol=1e-5, rtol=1e-5)


def test_the_summary_says_what_was_left_out(capsys):
    for key, value in REFERENCES['mocov3']().state.items():
        assert key.startswith('module.') and value.numel()
    write({'state_dict': REFERENCES['mocov3']().state, 'optimizer': {}, 'epoch': 300, '\x1b[2J': 1}, 'vit.pth.tar')
    assert call('vit.pth.tar', 'dst.safetensors') == 0
    out = capsys.readouterr().out
    for part in (
        'mocov3',
        'momentum encoder',
        "pre-training's predictor",
        'head',
        r'beside the weights: optimizer, epoch, \x1b[2J',
    ):
        assert part in out


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
    sizes = dict(img_size=112, patch_size=14, layer_scale_init_value=1e-5)
    config = dict(
        default_scope='mmpretrain',
        model=dict(
            type='PETLImageClassifier',
            backbone=dict(type='VisionTransformer', arch=arch, **sizes),
            head=dict(type='PETLImageHead', num_classes=3, in_channels=384),
            petl=dict(deltas={}, train=['head']),
            base=dict(file='dst.safetensors'),
        ),
    )
    x = torch.randn(1, 3, 112, 112)
    ours = features(config, x)
    config['model']['base'] = dict(file=str(REAL), convert='timm_vit')
    torch.testing.assert_close(ours, features(config, x), atol=0, rtol=0)


def killed(*_: object) -> None:
    """In the place of a step: the process ends there."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('step', ['weights.files.save_file', 'files.os.replace'])
def test_killed_it_leaves_what_was_there(monkeypatch, step):
    """While the new file is written, and when it is whole and not yet in its place."""
    write(timm())
    Path('dst.safetensors').write_bytes(b'what was there')
    monkeypatch.setattr(f'vpetl_mm.{step}', killed)
    argv = 'src.pth', 'dst.safetensors', Options(force=True)
    child = multiprocessing.get_context('fork').Process(target=convert, args=argv)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert Path('dst.safetensors').read_bytes() == b'what was there'


def test_a_2d_swin_goes_into_the_window_of_the_config():
    config = tiny.config(depths=(1, 1, 2, 1), window_size=(2, 5, 5), patch_size=(4, 4, 4))
    Path('config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    assert call(write(swin2d().state), 'dst.safetensors', '--config', 'config.py') == 0
    state = load_file('dst.safetensors')
    assert state['backbone.layers.0.blocks.0.attn.relative_position_bias_table'].shape == (3 * 81, 2)
    assert state['backbone.patch_embed.proj.weight'].shape == (16, 3, 4, 4, 4)


@pytest.mark.parametrize('window', [(16, 7, 7), (8, 8, 8), (1, 7, 7), (2, 4, 4), (4, 12, 12)])
def test_windows_are_told_from_the_tables(window):
    write({k: v for k, v in swin((1,), window, pretrained2d=False).state_dict().items() if 'index' not in k})
    assert convert('src.pth', 'dst.safetensors', Options()).backbone['window_size'] == window


def test_a_window_of_two_readings_is_told_from_the_index(capsys):
    """9 9 9 offsets are of a window (5, 5, 5), and of (41, 2, 2)."""
    state = swin((1,), (5, 5, 5), pretrained2d=False).state_dict()
    assert convert(write(state), 'dst.safetensors', Options()).backbone['window_size'] == (5, 5, 5)
    write({k: v for k, v in state.items() if 'index' not in k})
    assert '--config' in refused(capsys, 'src.pth', 'other.safetensors')


def test_parameters_and_other_layouts_are_weights_too():
    state = timm()
    state['cls_token'] = torch.nn.Parameter(state['cls_token'])
    state['blocks.0.mlp.fc1.weight'] = state['blocks.0.mlp.fc1.weight'].T.contiguous().T
    assert call(write(state), 'dst.safetensors') == 0
    assert torch.equal(
        load_file('dst.safetensors')['backbone.layers.0.ffn.layers.0.0.weight'], timm()['blocks.0.mlp.fc1.weight']
    )


# A converted file as base


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
        base = dict(file=str(dst), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        build_model(model_config(conversion.backbone, reference, base), init_weights=True)
    base = dict(file=str(dst), sha256='0' * 64)
    with pytest.raises(UserError, match='SHA-256'):
        build_model(model_config(conversion.backbone, reference, base), init_weights=True)


def test_a_converted_file_of_another_host_is_refused(tmp_path):
    _, dst = converted(adaptformer(), tmp_path)
    with pytest.raises(UserError, match=r'converted for mmpretrain\.VisionTransformer.*SwinTransformer3D'):
        build_model(tiny.config(base=dict(file=str(dst))), init_weights=True)


@pytest.mark.parametrize('record', ['no JSON', '{}', '[]', '{"format": 99}', 'null'])
def test_a_record_that_cannot_be_read_is_refused(record):
    save_file({'backbone.a': torch.ones(1)}, 'dst.safetensors', {'vpetl_mm': record})
    with pytest.raises(UserError, match='record'):
        build_model(tiny.config(base=dict(file='dst.safetensors')), init_weights=True)


def test_a_missing_base_says_how_to_convert_it():
    base = dict(file='data/weights/a.pth', url='https://example.org/a.pth')
    with pytest.raises(UserError) as error:
        build_model(tiny.config(base=base), init_weights=True)
    for part in (
        'https://example.org/a.pth',
        'tools/convert_checkpoint.py data/weights/a.pth data/weights/a.safetensors',
        'model.base.file=data/weights/a.safetensors',
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r'convert_checkpoint.py \S+ data/weights/b.safetensors'):
        build_model(tiny.config(base=dict(base, file='data/weights/b.safetensors')), init_weights=True)


def test_the_demo_s_missing_backbone_is_made_by_the_demo():
    base = load_config(TOOL.parents[1] / 'configs/demo_bapat.py').model.base
    with pytest.raises(UserError, match='"make demo" makes it'):
        build_model(tiny.config(base=base), init_weights=True)
