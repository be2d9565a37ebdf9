"""Weights that a config names in model.base: loaded exactly, or refused with a reason and nothing changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import tiny
import torch
from convert_command import load, timm, write, write_config
from references import REFERENCES, model_config, prefixed, swin
from safetensors.torch import save_file
from test_swin import authors_names, swin2d_state
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.conversion import convert
from vpetl_mm.config import load_config
from vpetl_mm.files import file_sha256
from vpetl_mm.weights.base import load_base

State = dict[str, Tensor]
REPO = Path(__file__).parents[2]


def in_mmaction2(state: State) -> dict[str, State]:
    """As in mmaction2's zoo: a backbone and a classifier of other classes."""
    head = {'cls_head.fc_cls.weight': torch.randn(400, 32), 'cls_head.fc_cls.bias': torch.randn(400)}
    return dict(meta={}, state_dict=prefixed('backbone.', state) | head)


def without_indices(state: State) -> State:
    return {k: v for k, v in state.items() if 'relative_position_index' not in k}


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def said_by(error: pytest.ExceptionInfo, *words: object) -> None:
    assert all(str(word) in str(error.value) for word in words), str(error.value)


# What fits

FITTING = {
    "mmaction2's": (in_mmaction2, None),
    'a backbone alone': (dict, None),
    'without indices': (lambda s: in_mmaction2(without_indices(s)), None),
    "the authors'": (lambda s: in_mmaction2(authors_names(s)), 'video_swin'),
}


@pytest.mark.parametrize(('content', 'convert_'), FITTING.values(), ids=FITTING)
def test_what_fits_is_loaded(content, convert_):
    source, target = swin(), swin(seed=1)
    load_base(target, dict(file=write(content(source.state_dict())), convert=convert_))
    assert same(target.state_dict(), source.state_dict())


@pytest.mark.parametrize('convert_', [None, 'video_swin'])
def test_safetensors(convert_):
    source, target = swin(), swin(seed=1)
    state = authors_names(source.state_dict()) if convert_ else source.state_dict()
    save_file(prefixed('backbone.', state), 'a.safetensors')
    load_base(target, dict(file='a.safetensors', convert=convert_))
    assert same(target.state_dict(), source.state_dict())


def test_half_precision_files():
    source, target = swin(), swin(seed=1)
    state = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    load_base(target, dict(file=write(in_mmaction2(state))))
    assert all(v.dtype == source.state_dict()[k].dtype for k, v in target.state_dict().items())
    torch.testing.assert_close(target.state_dict(), source.state_dict(), atol=1e-3, rtol=1e-3)


def test_sha256():
    file = write(swin().state_dict())
    right = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert file_sha256(file) == right
    load_base(swin(seed=1), dict(file=file, sha256=right))


# What does not fit


def refused(file: str, *words: object, target: nn.Module | None = None, **base: object) -> None:
    """Loading ``file`` ends in an error with ``words``, and leaves the backbone unchanged."""
    target = target or swin(seed=1)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_base(target, dict(base, file=file))
    assert same(target.state_dict(), before) and '\n' not in str(error.value)
    said_by(error, file, *words)


UNFITTING = {
    'fewer blocks': lambda: swin((1, 1)).state_dict(),
    'more blocks': lambda: swin((3, 1)).state_dict(),
    'another window': lambda: swin(window=(2, 3, 3)).state_dict(),
    'one wrong shape at the end': lambda: swin().state_dict() | {'norm1.bias': torch.zeros(31)},
    'another model': nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict,
    'the authors names without a conversion': lambda: authors_names(swin().state_dict()),
}


@pytest.mark.parametrize('make', UNFITTING.values(), ids=UNFITTING)
def test_what_does_not_fit_is_counted_and_named(make):
    state, target = make(), swin().state_dict()
    fit = [k for k in target if k in state and state[k].shape == target[k].shape]
    wrong = next(k for k in [*target, *state] if k not in fit)
    shapes = [tuple(s[wrong].shape) for s in (state, target)] if wrong in state and wrong in target else []
    refused(write(state), f'{len(fit)} of {len(target)} keys', wrong, *shapes)


@pytest.mark.parametrize(
    ('make', 'convert_', 'depths'),
    [
        (lambda: nn.Linear(3, 3).state_dict(), 'video_swin', (2, 1)),
        (lambda: nn.Linear(3, 3).state_dict(), 'swin2d', (2, 1)),
        (lambda: authors_names(swin().state_dict()), 'swin2d', (2, 1)),
        (swin2d_state, 'video_swin', (2, 1)),
        (swin2d_state, 'swin2d', (3, 1)),
    ],
    ids=['unlike', 'unlike 2D', 'a video file as 2D', 'a 2D file as video', 'another depth'],
)
def test_what_does_not_fit_its_conversion(make, convert_, depths):
    refused(write(make()), convert=convert_, target=swin(depths, seed=1))


@pytest.mark.parametrize('content', [{}, [1, 2], {'state_dict': {}}, {'a': 1}, 3], ids=str)
def test_files_without_weights(content):
    refused(write(content))


def test_what_is_not_finite():
    state = {k: v.clone() for k, v in swin().state_dict().items()}
    key = next(k for k in state if k.endswith('fc1.weight'))
    state[key][0, 0] = float('nan')
    refused(write(state), f'not finite: {key}')


def test_a_wrong_sha256():
    refused(write(in_mmaction2(swin().state_dict())), 'SHA-256', '0' * 64, sha256='0' * 64)


def test_a_missing_file_says_where_to_get_it():
    url = 'https://example.org/a.pth'
    refused('weights/a.pth', 'model.base')
    refused(
        *('weights/a.pth', url, 'tools/convert_checkpoint.py weights/a.pth weights/a.safetensors'),
        *('model.base.file=weights/a.safetensors',),
        url=url,
    )
    refused('weights/b.safetensors', url, 'tools/convert_checkpoint.py DOWNLOADED weights/b.safetensors', url=url)
    demo = load_config(REPO / 'configs/demo_bapat.py').model.base.file
    refused(demo, '"make demo" creates it')


# Through the model


def test_a_failed_load_leaves_the_deltas_in_place():
    base = dict(file=write(swin((1, 1)).state_dict()))
    model = build_model(tiny.config(dict(patt=dict(type='PATT', d_bottle=2)), depths=(2, 1), base=base))
    keys = list(model.state_dict())
    with pytest.raises(UserError):
        model.init_weights()
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize('convert_', [None, 'video_swin', 'swin2d'])
def test_deltas_do_not_disturb_the_load(convert_):
    deltas = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', source='residual'))
    source = swin().state_dict()
    base = dict(file='src.pth', convert=convert_)
    if convert_ == 'swin2d':
        write(swin2d_state())
        plain = swin(seed=1)
        load_base(plain, base)
        source = plain.state_dict()
    else:
        write(authors_names(source) if convert_ else source)
    model = build_model(tiny.config(deltas, depths=(2, 1), base=base), init_weights=True)
    assert same({k: v for k, v in model.backbone.state_dict().items() if '.deltas.' not in k}, source)


HOMES = dict(video_swin='swin3d', swin2d='swin3d', timm_vit='vit', videomae='videomae')


@pytest.mark.parametrize(
    ('name', 'convert_'), [(n, c) for c, home in HOMES.items() for n in tiny.HOSTS if not n.startswith(home)]
)
def test_a_naming_for_another_host_is_refused(convert_, name):
    config = tiny.HOSTS[name].config()
    config['model']['base'] = dict(file=write({'x': torch.ones(1)}), convert=convert_)
    with pytest.raises(UserError, match=f"convert='{convert_}' is for"):
        build_model(config, init_weights=True)


@pytest.mark.parametrize('name', tiny.HOSTS)
def test_a_head_of_another_width_is_refused(name):
    host = tiny.HOSTS[name]
    config = host.config()
    config['model'][host.head]['in_channels'] += 1
    with pytest.raises(UserError, match='in_channels is 17, and the backbone has 16'):
        build_model(config)


def test_the_heads_that_a_source_tells_go_with_the_file():
    reference = REFERENCES['google_vit']()
    backbone = convert(write(reference.state), 'dst.safetensors').backbone
    heads = backbone['arch']['num_heads']
    load(reference, backbone, file='dst.safetensors')
    other = backbone | dict(arch=dict(backbone['arch'], num_heads=2 * heads))
    for base in (dict(file='dst.safetensors'), dict(file='src.pth', convert='google_vit')):
        with pytest.raises(UserError, match=f'its attention has {heads} heads'):
            load(reference, other, **base)


def test_a_file_that_a_config_resized_is_for_that_size():
    reference = REFERENCES['timm_vit']()
    backbone = convert(write(timm()), 'plain.safetensors').backbone
    larger = backbone | dict(img_size=2 * backbone['img_size'])
    convert('src.pth', 'large.safetensors', config=write_config(model_config(larger, reference, None)))
    load(reference, larger, file='large.safetensors')
    load(reference, larger, file='plain.safetensors')
    with pytest.raises(UserError, match=r'converted for the image size of config.py'):
        load(reference, backbone, file='large.safetensors')
