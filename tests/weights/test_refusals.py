"""Wrong input of the command: one sentence, exit status 2, and nothing written or changed."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from convert_command import call, refused, timm, write
from references import REFERENCES, mmaction_swin, model_config, of_timm, video_swin
from safetensors.torch import load_file, save_file

from tools import snapshot
from vpetl_mm.commands.conversion import Options, convert
from vpetl_mm.weights.kinds import KINDS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)


# Incomplete and left over


@pytest.mark.parametrize('name', REFERENCES)
def test_a_missing_tensor_is_named_as_the_file_would(name, tmp_path, capsys):
    """Every third key that goes somewhere is left out, one at a time."""
    state = dict(REFERENCES[name]().state)
    for key in _used(state, tmp_path)[:75:3]:
        write({k: v for k, v in state.items() if k != key})
        error = refused(capsys, 'src.pth', 'dst.safetensors')
        assert re.sub(r'^((module|base_encoder|backbone|encoder)\.)+', '', key) in error, (key, error)


def _used(state: dict, folder: Path) -> list[str]:
    """The keys that go somewhere, in an order that mixes blocks and the rest."""
    torch.save(state, folder / 'all.pth')
    keys = convert(str(folder / 'all.pth'), str(folder / 'all.safetensors'), Options()).record.keys
    return sorted((k for k, fate in keys.items() if 'to' in fate), key=lambda k: k[::-1])


@pytest.mark.parametrize(
    'left',
    [
        'blocks.0.adaptmlp.down_proj.weight',
        'blocks.1.attn.q_norm.weight',
        'norm_pre.weight',
        'something',
        'blocks.x.y',
    ],
)
def test_left_over(capsys, left):
    write(timm() | {left: torch.ones(3)})
    assert 'left over' in (error := refused(capsys, 'src.pth', 'dst.safetensors')) and left in error


def test_left_over_in_a_swin(capsys):
    left = 'layers.0.blocks.0.attn.qkv_adapter.0.weight'
    write(video_swin().state | {f'backbone.{left}': torch.ones(3), 'other.thing': torch.ones(1)})
    error = refused(capsys, 'src.pth', 'dst.safetensors')
    assert f'backbone.{left}' in error and 'other.thing' in error


def test_missing_and_left_over_come_together(capsys):
    state = timm()
    state['blocks.1.norm3.weight'] = state.pop('blocks.1.norm2.weight')
    error = refused(capsys, write(state), 'dst.safetensors')
    assert 'missing: blocks.1.norm2.weight' in error and 'left over: blocks.1.norm3.weight' in error


def test_a_missing_block(capsys):
    state = {k.replace('blocks.1.', 'blocks.1000000000.'): v for k, v in timm().items()}
    assert 'blocks.1 is missing' in refused(capsys, write(state), 'dst.safetensors')


@pytest.mark.parametrize(('key', 'word'), [('dist_token', 'distilled'), ('reg_token', 'register')])
def test_tokens_that_no_host_has(capsys, key, word):
    write(timm() | {key: torch.ones(1, 1, 16)})
    assert word in refused(capsys, 'src.pth', 'dst.safetensors')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_no_number_is_refused(capsys, value):
    state = timm()
    state['blocks.1.attn.proj.bias'] = state['blocks.1.attn.proj.bias'].clone()
    state['blocks.1.attn.proj.bias'][3] = value
    error = refused(capsys, write(state), 'dst.safetensors')
    assert 'not finite: blocks.1.attn.proj.bias' in error


def test_whole_numbers_are_no_weights(capsys):
    state = {k: v.to(torch.int8) if k.endswith('fc1.weight') else v for k, v in timm().items()}
    assert 'not floating-point: blocks.0.mlp.fc1.weight' in refused(capsys, write(state), 'dst.safetensors')


def test_a_learned_position_of_a_video_vit(capsys):
    state = dict(REFERENCES['videomae, fine-tuned']().state) | {'pos_embed': torch.randn(1, 32, 32)}
    assert 'pos_embed' in refused(capsys, write(state), 'dst.safetensors')


# Wrong files, paths and options


@pytest.mark.parametrize('suffix', ['pth', 'pt', 'bin', 'safetensors', 'npz', 'txt'])
@pytest.mark.parametrize(
    'content', [b'', b'not weights at all', b'PK\x03\x04' + bytes(50)], ids=['empty', 'text', 'zip']
)
def test_a_file_that_is_none(capsys, suffix, content):
    Path(f'src.{suffix}').write_bytes(content)
    assert f'src.{suffix}' in refused(capsys, f'src.{suffix}', 'dst.safetensors')


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'npz'])
def test_a_truncated_file(capsys, suffix):
    state = timm()
    torch.save(state, 'src.pth')
    save_file(state, 'src.safetensors')
    np.savez('src.npz', **{k: v.numpy() for k, v in state.items()})
    content = Path(f'src.{suffix}').read_bytes()
    Path(f'src.{suffix}').write_bytes(content[: len(content) * 2 // 3])
    assert 'is it whole?' in refused(capsys, f'src.{suffix}', 'dst.safetensors')


def test_an_archive_without_numbers(capsys):
    np.savez('empty.npz')
    assert 'holds no weights' in refused(capsys, 'empty.npz', 'dst.safetensors')
    np.savez('objects.npz', a=np.array([argparse.Namespace(lr=1)], dtype=object))
    assert 'objects.npz' in refused(capsys, 'objects.npz', 'dst.safetensors')
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
    write(dict(model=timm(), extra=Payload()))
    error = refused(capsys, 'src.pth', 'dst.safetensors')
    assert 'mkdir' in error and '--trust-pickle' in error and not Path('was_run').exists()


def test_a_pickle_with_a_class_needs_trust(capsys):
    """As MAE's and VideoMAE's fine-tuned files hold their command line's options."""
    write(dict(model=timm(), args=argparse.Namespace(lr=1)))
    error = refused(capsys, 'src.pth', 'dst.safetensors')
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
    error = refused(capsys, write(timm()), 'dst.safetensors', '--kind', kind)
    assert f'src.pth: as {kind}' in error and ('missing' in error or '5 dimensions' in error)


@pytest.mark.parametrize('kind', ['timm_vit', 'videomae', 'swin2d', 'mmpretrain_vit'])
def test_a_wrong_kind_of_a_swin(capsys, kind):
    assert f'as {kind}' in refused(capsys, write(video_swin().state), 'dst.safetensors', '--kind', kind)


def test_a_kind_that_does_not_exist(capsys):
    error = refused(capsys, write(timm()), 'dst.safetensors', '--kind', 'tim_vit')
    assert "Did you mean 'timm_vit'?" in error and all(kind in error for kind in KINDS)


def test_what_is_not_recognised_lists_kinds_and_keys(capsys):
    error = refused(capsys, write(torch.nn.Linear(3, 3).state_dict()), 'dst.safetensors')
    assert all(kind in error for kind in KINDS) and 'weight, bias' in error


def test_a_config_of_another_host(capsys):
    Path('config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in tiny.config().items()))
    error = refused(capsys, write(timm()), 'dst.safetensors', '--config', 'config.py')
    assert 'mmaction.SwinTransformer3D' in error and 'mmpretrain.VisionTransformer' in error


def test_a_config_of_another_window(capsys):
    Path('config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in tiny.config(depths=(2, 1)).items()))
    assert call(write(mmaction_swin().state), 'dst.safetensors', '--config', 'config.py') == 0
    state = {k: v[:-1] if k.endswith('bias_table') else v for k, v in mmaction_swin().state.items()}
    error = refused(capsys, write(state), 'other.safetensors', '--config', 'config.py')
    assert 'backbone.layers.0.blocks.0.attn.relative_position_bias_table, (146, 2) for (147, 2)' in error
    assert '--config' in refused(capsys, 'src.pth', 'other.safetensors')


def test_a_config_that_does_not_exist(capsys):
    assert 'nowhere.py' in refused(capsys, write(timm()), 'dst.safetensors', '--config', 'nowhere.py')


def test_other_heads_than_the_archive_has(capsys):
    reference = of_timm('google')
    backbone = tiny.HOSTS['vit'].config()['model']['backbone']
    config = model_config(backbone | dict(arch=dict(backbone['arch'], num_heads=4)), reference, None)
    Path('config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    assert '2 heads' in refused(capsys, write(reference.state), 'dst.safetensors', '--config', 'config.py')


def test_paths(capsys):
    write(timm())
    Path('there.safetensors').write_bytes(b'precious')
    Path('folder.safetensors').mkdir()
    save_file(timm(), 'self.safetensors')
    os.symlink('self.safetensors', 'link.safetensors')
    for src, dst, word in (
        ('nothing.pth', 'dst.safetensors', 'nothing.pth does not exist or is no file'),
        ('.', 'dst.safetensors', 'folder'),
        ('src.pth', 'dst.pth', 'must end in .safetensors'),
        ('src.pth', 'there.safetensors', '--force'),
        ('src.pth', 'folder.safetensors', 'folder'),
        ('src.pth', 'src.pth/dst.safetensors', 'src.pth is a file'),
        ('self.safetensors', 'self.safetensors', 'another name'),
        ('self.safetensors', 'link.safetensors', 'another name'),
    ):
        assert word in refused(capsys, src, dst)
    assert 'another name' in refused(capsys, 'self.safetensors', 'link.safetensors', '--force')
    with open('there.safetensors', 'rb') as reader:
        assert call('src.pth', 'there.safetensors', '--force') == 0
        assert reader.read() == b'precious', 'written over, not exchanged'
    assert len(load_file('there.safetensors')) > 20
    Path('like').touch()
    assert Path('there.safetensors').stat().st_mode == Path('like').stat().st_mode
    assert not list(Path().glob('*.partial'))


def test_what_comes_from_this_project_is_no_source(capsys):
    assert call(write(timm()), 'dst.safetensors') == 0
    capsys.readouterr()
    assert 'converted already' in refused(capsys, 'dst.safetensors', 'again.safetensors')
    write(dict(meta=dict(adapter_format=1), state_dict={'head.fc.weight': torch.ones(3, 16)}), 'adapter.pth')
    assert 'adapter.pth: it is an adapter' in refused(capsys, 'adapter.pth', 'again.safetensors')
    deltas = {'backbone.layers.0.attn.qkv.deltas.patt.down.weight': torch.ones(2, 16)}
    assert 'deltas' in refused(capsys, write(timm() | deltas, 'epoch.pth'), 'again.safetensors')
