"""Wrong input of the converter: one sentence, exit status 2, and nothing written or changed."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from convert_command import call, refused, timm, write, write_config
from references import REFERENCES, mmaction_swin, model_config, of_timm, video_swin
from safetensors.torch import load_file, save_file

from tools import snapshot
from vpetl_mm.commands.conversion import convert
from vpetl_mm.weights.kinds import KINDS

pytestmark = pytest.mark.usefixtures('elsewhere')

# Incomplete and left over


@pytest.mark.parametrize('name', REFERENCES)
def test_a_missing_tensor_is_named_as_the_file_would(name, capsys):
    """Every third key that goes somewhere is left out, one at a time."""
    state = dict(REFERENCES[name]().state)
    keys = convert(write(state), 'all.safetensors').origin.keys
    # in an order that mixes blocks and the rest
    used = sorted((k for k, fate in keys.items() if 'to' in fate), key=lambda k: k[::-1])
    for key in used[:75:3]:
        error = refused(capsys, write({k: v for k, v in state.items() if k != key}))
        assert re.sub(r'^((module|base_encoder|backbone|encoder)\.)+', '', key) in error, (key, error)


LEFT = [
    'blocks.0.adaptmlp.down_proj.weight',
    'blocks.1.attn.q_norm.weight',
    'norm_pre.weight',
    'something',
    'blocks.x.y',
]


@pytest.mark.parametrize('left', LEFT)
def test_left_over(capsys, left):
    error = refused(capsys, write(timm() | {left: torch.ones(3)}))
    assert 'left over' in error and left in error


def test_left_over_in_a_swin(capsys):
    left = 'layers.0.blocks.0.attn.qkv_adapter.0.weight'
    write(video_swin().state | {f'backbone.{left}': torch.ones(3), 'other.thing': torch.ones(1)})
    error = refused(capsys, 'src.pth')
    assert f'backbone.{left}' in error and 'other.thing' in error


def test_missing_and_left_over_come_together(capsys):
    state = timm()
    state['blocks.1.norm3.weight'] = state.pop('blocks.1.norm2.weight')
    error = refused(capsys, write(state))
    assert 'missing: blocks.1.norm2.weight' in error and 'left over: blocks.1.norm3.weight' in error


def spoilt(key: str, value: float) -> dict[str, torch.Tensor]:
    """A file in timm's naming with one wrong number."""
    state = timm()
    state[key] = state[key].clone()
    state[key][3] = value
    return state


FILES = {
    'blocks.1 is missing': lambda: {k.replace('blocks.1.', 'blocks.1000000000.'): v for k, v in timm().items()},
    'distilled': lambda: timm() | {'dist_token': torch.ones(1, 1, 16)},
    'register': lambda: timm() | {'reg_token': torch.ones(1, 1, 16)},
    'not finite: blocks.1.attn.proj.bias': lambda: spoilt('blocks.1.attn.proj.bias', float('nan')),
    'not finite: blocks.0.norm1.bias': lambda: spoilt('blocks.0.norm1.bias', float('inf')),
    'not floating-point: blocks.0.mlp.fc1.weight': lambda: {
        k: v.to(torch.int8) if k.endswith('fc1.weight') else v for k, v in timm().items()
    },
    'pos_embed is learned': lambda: (
        REFERENCES['videomae, fine-tuned']().state | {'pos_embed': torch.randn(1, 32, 32)}
    ),
    'head.weight would take': lambda: timm() | {'head.weight': torch.zeros(1).expand(10**13)},
    'head.weight has a shape but no values': lambda: timm() | {'head.weight': torch.zeros(2, device='meta')},
    'its kind is not recognised; its first keys are: weight, bias': torch.nn.Linear(3, 3).state_dict,
}


@pytest.mark.parametrize('said', FILES)
def test_files_that_are_not_a_backbone_of_ours(capsys, said):
    error = refused(capsys, write(FILES[said]()))
    assert said in error and ('recognised' not in said or all(kind in error for kind in KINDS)), error


# Wrong files, paths and options


def test_an_archive_without_numbers(capsys):
    np.savez('empty.npz')
    assert 'holds no weights' in refused(capsys, 'empty.npz')
    np.savez('objects.npz', a=np.array([argparse.Namespace(lr=1)], dtype=object))
    assert 'objects.npz' in refused(capsys, 'objects.npz')
    assert 'objects.npz' in refused_trusting(capsys, 'objects.npz')


def refused_trusting(capsys, source: str) -> str:
    before = snapshot()
    assert call(source, 'dst.safetensors', '--trust-pickle') == 2
    assert snapshot() == before
    return capsys.readouterr().err


class Payload:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ('was_run',)


def test_a_pickle_that_runs_code_is_refused(capsys):
    error = refused(capsys, write(dict(model=timm(), extra=Payload())))
    assert 'mkdir' in error and '--trust-pickle' in error and not Path('was_run').exists()


def test_a_pickle_with_a_class_needs_trust(capsys):
    """As MAE's and VideoMAE's fine-tuned files hold their command line's options."""
    error = refused(capsys, write(dict(model=timm(), args=argparse.Namespace(lr=1))))
    assert 'argparse.Namespace' in error and '--trust-pickle' in error
    assert call('src.pth', 'dst.safetensors', '--trust-pickle') == 0
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and err.startswith('warning: ') and 'src.pth' in err
    assert len(load_file('dst.safetensors')) == len(timm()) - 2


def test_trust_does_not_mend_a_broken_file(capsys):
    Path('src.pth').write_bytes(b'not weights')
    assert 'error: src.pth' in refused_trusting(capsys, 'src.pth')


@pytest.mark.parametrize(
    'kind', ['video_swin', 'mmaction_swin', 'swin2d', 'videomae', 'mmpretrain_vit', 'google_vit']
)
def test_a_wrong_kind(capsys, kind):
    error = refused(capsys, write(timm()), '--kind', kind)
    assert f'src.pth: as {kind}' in error and ('missing' in error or '5 dimensions' in error)


@pytest.mark.parametrize('kind', ['timm_vit', 'videomae', 'swin2d', 'mmpretrain_vit'])
def test_a_wrong_kind_of_a_swin(capsys, kind):
    assert f'as {kind}' in refused(capsys, write(video_swin().state), '--kind', kind)


@pytest.mark.parametrize(('kind', 'said'), [('dinov2', 'no LayerScale'), ('miil', 'a bias in qkv')])
def test_a_kind_that_the_file_is_not(capsys, kind, said):
    assert said in refused(capsys, write(timm()), '--kind', kind)


def test_a_kind_that_does_not_exist(capsys):
    error = refused(capsys, write(timm()), '--kind', 'tim_vit')
    assert "Did you mean 'timm_vit'?" in error and all(kind in error for kind in KINDS)


def test_a_config_of_another_host(capsys):
    error = refused(capsys, write(timm()), '--config', write_config(tiny.config()))
    assert 'mmaction.SwinTransformer3D' in error and 'mmpretrain.VisionTransformer' in error


def test_a_config_of_another_window(capsys):
    config = write_config(tiny.config(depths=(2, 1)))
    assert call(write(mmaction_swin().state), 'dst.safetensors', '--config', config) == 0
    state = {k: v[:-1] if k.endswith('bias_table') else v for k, v in mmaction_swin().state.items()}
    error = refused(capsys, write(state), '--config', config)
    table = 'backbone.layers.0.blocks.0.attn.relative_position_bias_table'
    assert f'{table}, (146, 2) instead of (147, 2)' in error and '--config' in refused(capsys, 'src.pth')


def test_a_config_that_does_not_exist(capsys):
    assert 'nowhere.py' in refused(capsys, write(timm()), '--config', 'nowhere.py')


def test_a_norm_of_another_kind_than_the_configs(capsys):
    state = {k.replace('norm.', 'fc_norm.') if k.startswith('norm.') else k: v for k, v in timm().items()}
    backbone = convert(write(timm()), 'plain.safetensors').backbone
    config = write_config(model_config(backbone, REFERENCES['timm_vit'](), None))
    error = refused(capsys, write(state, 'pooled.pth'), '--config', config)
    assert 'its last norm is applied after averaging the patches' in error


def test_other_heads_than_the_archive_has(capsys):
    reference = of_timm('google')
    backbone = tiny.HOSTS['vit'].config()['model']['backbone']
    config = model_config(backbone | dict(arch=dict(backbone['arch'], num_heads=4)), reference, None)
    assert '2 heads' in refused(capsys, write(reference.state), '--config', write_config(config))


def test_paths(capsys):
    write(timm())
    Path('there.safetensors').write_bytes(b'precious')
    Path('folder.safetensors').mkdir()
    save_file(timm(), 'self.safetensors')
    os.symlink('self.safetensors', 'link.safetensors')
    for src, dst, word in (
        ('nothing.pth', 'dst.safetensors', 'nothing.pth does not exist'),
        ('.', 'dst.safetensors', 'folder'),
        ('src.pth', 'dst.pth', 'must end in .safetensors'),
        ('src.pth', 'there.safetensors', '--force'),
        ('src.pth', 'folder.safetensors', 'folder'),
        ('src.pth', 'src.pth/dst.safetensors', 'src.pth is a file'),
        ('self.safetensors', 'self.safetensors', 'another name'),
        ('self.safetensors', 'link.safetensors', 'another name'),
        ('x' * 300 + '.pth', 'dst.safetensors', 'File name too long'),
        ('src.pth', 'x' * 300 + '.safetensors', 'File name too long'),
    ):
        assert word in refused(capsys, src, dst=dst)
    assert 'another name' in refused(capsys, 'self.safetensors', '--force', dst='link.safetensors')
    with open('there.safetensors', 'rb') as reader:
        assert call('src.pth', 'there.safetensors', '--force') == 0
        assert reader.read() == b'precious', 'written over, not exchanged'
    assert len(load_file('there.safetensors')) > 20
    Path('like').touch()
    assert Path('there.safetensors').stat().st_mode == Path('like').stat().st_mode
    assert not list(Path().glob('*.partial'))


def test_results_of_this_project_are_refused(capsys):
    assert call(write(timm()), 'dst.safetensors') == 0
    capsys.readouterr()
    assert 'already converted' in refused(capsys, 'dst.safetensors')
    write(dict(meta=dict(adapter_format=1), state_dict={'head.fc.weight': torch.ones(3, 16)}), 'adapter.pth')
    assert 'adapter.pth: it is an adapter' in refused(capsys, 'adapter.pth')
    deltas = {'backbone.layers.0.attn.qkv.deltas.patt.down.weight': torch.ones(2, 16)}
    assert 'deltas' in refused(capsys, write(timm() | deltas, 'epoch.pth'))
