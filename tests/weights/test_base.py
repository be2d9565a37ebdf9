"""Pre-trained files of every kind: translated exactly, or refused with a reason and nothing changed."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from mmaction.models.backbones import SwinTransformer3D
from safetensors.torch import save_file
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.files import file_sha256
from vpetl_mm.weights.base import load_base
from vpetl_mm.weights.source import read_weights

State = dict[str, Tensor]
WINDOW = (2, 4, 4)


def swin(depths: tuple[int, ...] = (2, 1), seed: int = 0, **options) -> SwinTransformer3D:
    """mmaction2's own Swin, random."""
    arch = dict(embed_dims=16, depths=list(depths), num_heads=[2 * 2**i for i in range(len(depths))])
    options = dict(window_size=WINDOW, drop_path_rate=0.0, out_indices=(len(depths) - 1,)) | options
    backbone = tiny.randomised(SwinTransformer3D(arch, pretrained2d=False, **options), seed)
    backbone.eval()  # returns None
    return backbone


def mmaction2_file(path: Path, state: State) -> Path:
    """As in mmaction2's zoo: a backbone and a classifier of other classes."""
    head = {'cls_head.fc_cls.weight': torch.randn(400, 32), 'cls_head.fc_cls.bias': torch.randn(400)}
    torch.save(dict(meta={}, state_dict={**{f'backbone.{k}': v for k, v in state.items()}, **head}), path)
    return path


def authors_names(state: State, last: int = 1) -> State:
    """As the Video Swin authors call them."""
    return {k.replace(f'norm{last}.', 'norm.') if k.startswith(f'norm{last}.') else k: v for k, v in state.items()}


def clone(module: nn.Module) -> State:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def said_by(error: pytest.ExceptionInfo, *words: object) -> None:
    assert all(str(word) in str(error.value) for word in words), str(error.value)


# What fits


def test_a_file_of_mmaction2(tmp_path):
    source, target = swin(), swin(seed=1)
    load_base(target, dict(file=mmaction2_file(tmp_path / 'a.pth', source.state_dict())))
    assert same(target.state_dict(), source.state_dict())


def test_a_file_of_a_backbone_alone(tmp_path):
    source, target = swin(), swin(seed=1)
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    load_base(target, dict(file=str(tmp_path / 'a.pth')))
    assert same(target.state_dict(), source.state_dict())


def test_a_file_of_the_video_swin_authors(tmp_path):
    source, target = swin(), swin(seed=1)
    path = mmaction2_file(tmp_path / 'a.pth', authors_names(source.state_dict()))
    assert 'backbone.norm.weight' in torch.load(path)['state_dict']
    load_base(target, dict(file=path, convert='video_swin'))
    assert same(target.state_dict(), source.state_dict())


def test_the_authors_names_need_the_conversion(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', authors_names(swin().state_dict()))
    with pytest.raises(UserError) as error:
        load_base(swin(seed=1), dict(file=path))
    said_by(error, 'norm')


@pytest.mark.parametrize('convert', [None, 'video_swin'])
def test_safetensors(tmp_path, convert):
    source, target = swin(), swin(seed=1)
    state = authors_names(source.state_dict()) if convert else source.state_dict()
    save_file({f'backbone.{k}': v for k, v in state.items()}, tmp_path / 'a.safetensors')
    load_base(target, dict(file=tmp_path / 'a.safetensors', convert=convert))
    assert same(target.state_dict(), source.state_dict())


def test_indices_may_be_left_out(tmp_path):
    source, target = swin(), swin(seed=1)
    state = {k: v for k, v in source.state_dict().items() if 'relative_position_index' not in k}
    load_base(target, dict(file=mmaction2_file(tmp_path / 'a.pth', state)))
    assert same(target.state_dict(), source.state_dict())


def test_half_precision_files(tmp_path):
    source, target = swin(), swin(seed=1)
    state = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    load_base(target, dict(file=mmaction2_file(tmp_path / 'a.pth', state)))
    assert all(v.dtype == source.state_dict()[k].dtype for k, v in target.state_dict().items())
    torch.testing.assert_close(target.state_dict(), source.state_dict(), atol=1e-3, rtol=1e-3)


def test_sha256(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', swin().state_dict())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_sha256(path) == right
    load_base(swin(seed=1), dict(file=path, sha256=right))


# A 2D Swin, inflated


def swin2d_state(window: int = 4) -> State:
    """The file of a 2D Swin: what a 3D one has, without time, with what the authors' files hold besides."""
    side = 2 * window - 1
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, value in authors_names(swin().state_dict()).items():
        state[key] = value
        if key.endswith('relative_position_bias_table'):
            state[key] = torch.randn(side * side, value.shape[1], generator=generator)
        elif key.endswith('relative_position_index'):
            state[key] = torch.zeros(window**2, window**2, dtype=torch.long)
        elif key == 'patch_embed.proj.weight':
            state[key] = torch.randn(16, 3, 4, 4, generator=generator)
    state['layers.0.blocks.1.attn_mask'] = torch.zeros(4, window**2, window**2)
    state |= {'head.weight': torch.randn(1000, 32), 'head.bias': torch.randn(1000)}
    return state


def inflated(tmp_path: Path, state: State, **options) -> SwinTransformer3D:
    torch.save(dict(model=state), tmp_path / '2d.pth')
    target = swin(seed=1, **options)
    load_base(target, dict(file=str(tmp_path / '2d.pth'), convert='swin2d'))
    return target


@pytest.mark.parametrize('frames', [1, 2, 4])
def test_inflated_patches_see_a_still_clip_as_the_image(tmp_path, frames):
    state = swin2d_state()
    target = inflated(tmp_path, state, patch_size=(frames, 4, 4))
    image = torch.randn(2, 3, 16, 16)
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    expected = F.conv2d(image, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=4)
    torch.testing.assert_close(target.patch_embed.proj(clip)[:, :, 0], expected)


@pytest.mark.parametrize('w_d', [1, 2, 3])
def test_inflated_bias_depends_on_space_alone(tmp_path, w_d):
    state = swin2d_state()
    attention = inflated(tmp_path, state, window_size=(w_d, 4, 4)).layers[1].blocks[0].attn
    n = w_d * 16
    bias = attention.relative_position_bias_table[attention.relative_position_index.view(-1)].view(n, n, -1)
    plane = state['layers.1.blocks.0.attn.relative_position_bias_table']
    for i, j in [(0, 0), (0, n - 1), (n - 1, 0), (5, 11), (n - 3, 6)]:
        (yi, xi), (yj, xj) = divmod(i % 16, 4), divmod(j % 16, 4)
        torch.testing.assert_close(bias[i, j], plane[(yi - yj + 3) * 7 + (xi - xj + 3)])


def test_everything_else_is_taken_as_it_is(tmp_path):
    state = swin2d_state()
    target = inflated(tmp_path, state)
    for key, value in target.state_dict().items():
        theirs = key.replace('norm1.', 'norm.') if key.startswith('norm1.') else key
        if 'relative_position' not in key and key != 'patch_embed.proj.weight':
            assert torch.equal(value, state[theirs]), key


@pytest.mark.parametrize('window', [4, 3, 6])
def test_inflation_is_mmaction2s_own(tmp_path, window):
    """The host library's inflate_weights (which looks for norm3 alone), also where tables are resized."""
    from mmengine.logging import MMLogger

    state = swin2d_state(window)
    target = inflated(tmp_path, state)
    host = swin(seed=2)
    host.pretrained = str(tmp_path / '2d.pth')
    host.inflate_weights(MMLogger.get_current_instance())
    ours, theirs = target.state_dict(), host.state_dict()
    for key in ours:
        if not key.startswith('norm1.'):
            torch.testing.assert_close(ours[key], theirs[key], msg=key)


# What does not fit


def refused(tmp_path: Path, state: object, convert: str | None = None, **options) -> pytest.ExceptionInfo:
    """The error that a file of ``state`` ends in; the backbone is unchanged then."""
    torch.save(state, tmp_path / 'wrong.pth')
    target = swin(seed=1, **options)
    before = clone(target)
    with pytest.raises(UserError) as error:
        load_base(target, dict(file=str(tmp_path / 'wrong.pth'), convert=convert))
    assert same(clone(target), before)
    said_by(error, 'wrong.pth')
    assert '\n' not in str(error.value)
    return error


def test_more_blocks_than_the_file_has(tmp_path):
    source, target = swin((1, 1)).state_dict(), swin().state_dict()
    matched = sum(k in source and source[k].shape == v.shape for k, v in target.items())
    first = next(k for k in target if k not in source)
    error = refused(tmp_path, source)
    said_by(error, f'{matched} of {len(target)}', first)


def test_fewer_blocks_than_the_file_has(tmp_path):
    source, target = swin((3, 1)).state_dict(), swin().state_dict()
    first = next(k for k in source if k not in target)
    error = refused(tmp_path, source)
    said_by(error, f'{len(target)} of {len(target)}', first)


def test_another_window(tmp_path):
    source = swin(window_size=(2, 3, 3)).state_dict()
    target = swin().state_dict()
    matched = sum(source[k].shape == v.shape for k, v in target.items())
    first = next(k for k in target if source[k].shape != target[k].shape)
    error = refused(tmp_path, source)
    said_by(error, f'{matched} of {len(target)}', first, tuple(source[first].shape), tuple(target[first].shape))


def test_one_wrong_shape_at_the_end(tmp_path):
    """All but the last key fit: none of them is loaded."""
    state = swin().state_dict()
    last = 'norm1.bias'
    state[last] = torch.zeros(31)
    error = refused(tmp_path, state)
    said_by(error, f'{len(state) - 1} of {len(state)}', last, '(31,)', '(32,)')


def test_an_unlike_model_matches_nothing(tmp_path):
    state = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    error = refused(tmp_path, state)
    said_by(error, f'0 of {len(swin().state_dict())}')


@pytest.mark.parametrize('convert', ['video_swin', 'swin2d'])
def test_an_unlike_model_with_a_conversion(tmp_path, convert):
    refused(tmp_path, nn.Linear(3, 3).state_dict(), convert)


def test_a_video_file_declared_as_2d(tmp_path):
    refused(tmp_path, authors_names(swin().state_dict()), 'swin2d')


def test_a_2d_file_not_declared_as_one(tmp_path):
    refused(tmp_path, swin2d_state(), 'video_swin')


def test_a_2d_file_of_another_depth(tmp_path):
    refused(tmp_path, swin2d_state(), 'swin2d', depths=(3, 1))


@pytest.mark.parametrize('content', [{}, [1, 2], {'state_dict': {}}, {'a': 1}, 3], ids=str)
def test_files_without_weights(tmp_path, content):
    refused(tmp_path, content)


def test_a_missing_file_says_where_to_get_it(tmp_path):
    target = swin()
    before = clone(target)
    path = tmp_path / 'missing.pth'
    with pytest.raises(UserError) as error:
        load_base(target, dict(file=str(path), url='https://example.org/b.pth'))
    said_by(error, path, 'https://example.org/b.pth')
    with pytest.raises(UserError) as error:
        load_base(target, dict(file=str(path)))
    said_by(error, path, 'model.base')
    assert same(clone(target), before)


def test_a_wrong_sha256(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', swin().state_dict())
    target = swin(seed=1)
    before = clone(target)
    with pytest.raises(UserError) as error:
        load_base(target, dict(file=path, sha256='0' * 64))
    said_by(error, path, 'SHA-256', '0' * 64)
    assert same(clone(target), before)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    mark = tmp_path / 'was_run'
    refused(tmp_path, dict(state_dict=swin().state_dict(), extra=Payload(mark)))
    assert not mark.exists()


def test_a_pickle_of_other_classes_is_refused(tmp_path):
    refused(tmp_path, dict(model=swin().state_dict(), args=argparse.Namespace(lr=1)))


@pytest.mark.parametrize('name', ['broken.pth', 'broken.safetensors'])
def test_a_broken_file(tmp_path, name):
    (tmp_path / name).write_bytes(b'not weights at all')
    with pytest.raises(UserError) as error:
        read_weights(tmp_path / name)
    said_by(error, name)


def test_a_truncated_file(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', swin().state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError) as error:
        read_weights(path)
    said_by(error, 'a.pth')


def test_an_empty_file(tmp_path):
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(UserError) as error:
        read_weights(tmp_path / 'empty.pth')
    said_by(error, 'empty.pth')


def test_a_folder(tmp_path):
    with pytest.raises(UserError):
        read_weights(tmp_path)


# Through the model


def test_a_model_whose_base_does_not_fit_ends_in_an_error(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', swin((1, 1)).state_dict())
    with pytest.raises(UserError):
        build_model(tiny.config(depths=(2, 1), base=dict(file=str(path))), init_weights=True)


def test_a_failed_load_leaves_the_deltas_in_place(tmp_path):
    path = mmaction2_file(tmp_path / 'a.pth', swin((1, 1)).state_dict())
    deltas = dict(patt=dict(type='PATT', d_bottle=2))
    model = build_model(tiny.config(deltas, depths=(2, 1), base=dict(file=str(path))))
    keys = list(model.state_dict())
    with pytest.raises(UserError):
        model.init_weights()
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize('convert', [None, 'video_swin', 'swin2d'])
def test_deltas_do_not_disturb_the_load(tmp_path, convert):
    deltas = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', source='residual'))
    source = swin()
    if convert == 'swin2d':
        source = inflated(tmp_path, swin2d_state())
    else:
        mmaction2_file(tmp_path / '2d.pth', authors_names(source.state_dict()) if convert else source.state_dict())
    base = dict(file=str(tmp_path / '2d.pth'), convert=convert)
    model = build_model(tiny.config(deltas, depths=(2, 1), base=base), init_weights=True)
    state = {k: v for k, v in model.backbone.state_dict().items() if '.deltas.' not in k}
    assert same(state, source.state_dict())


@pytest.mark.parametrize('convert', ['video_swin', 'swin2d', 'timm_vit', 'videomae'])
@pytest.mark.parametrize('name', tiny.HOSTS)
def test_a_naming_for_another_host_is_refused(tmp_path, convert, name):
    host = tiny.HOSTS[name]
    at_home = dict(video_swin='swin3d', swin2d='swin3d', timm_vit='vit', videomae='videomae')[convert]
    if name.startswith(at_home):
        return
    torch.save({'x': torch.ones(1)}, tmp_path / 'a.pth')
    config = host.config()
    config['model']['base'] = dict(file=str(tmp_path / 'a.pth'), convert=convert)
    with pytest.raises(UserError, match=f"convert='{convert}' is for"):
        build_model(config, init_weights=True)


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_a_head_of_another_width_is_refused(name):
    host = tiny.HOSTS[name]
    config = host.config()
    config['model'][host.head]['in_channels'] += 1
    with pytest.raises(UserError, match='in_channels is 17, and the backbone gives 16'):
        build_model(config)
