"""A stranger's bundle cannot do harm: whatever stands in the place of its parts, nothing is imported, run or left."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cases import adapter, both, linear_adapter, lora, patt, prefix, prompt
from mmengine.registry import MODELS, TRANSFORMS
from packed import bundle_of, content_of, write
from tiny import HOSTS

from tools import call, snapshot
from vpetl_mm import UserError
from vpetl_mm.use.bundle.bundle import read_about, read_bundle

DELTAS = both(patt(), adapter(), lora('fc1'), prefix(), prompt(), linear_adapter('fc2', 'behind')).deltas
Path_ = tuple[str | int, ...]


def full_of(host: str, folder: Path) -> dict[str, Any]:
    """The header of a bundle with as many dicts in it as there are."""
    attention = dict(swin3d='FastWindowAttention3D', vit='PETLMultiheadAttention', swin2d='FastWindowMSA')[host]
    norms = dict(norm_cfg=dict(type='LN', eps=1e-6))
    further = dict(swin3d=dict(act_cfg=dict(type='GELU')), vit={}, swin2d={})[host]
    config = HOSTS[host].config(DELTAS, petl=dict(attention=dict(type=attention)), seed=1, **norms, **further)
    return content_of(bundle_of(folder, config))[0]


@pytest.fixture(scope='module')
def headers(tmp_path_factory) -> dict[str, dict[str, Any]]:
    return {host: full_of(host, tmp_path_factory.mktemp(host)) for host in ('swin3d', 'vit', 'swin2d')}


@pytest.fixture
def traps(tmp_path, monkeypatch) -> Path:
    """An empty folder, the current one, beside a module that leaves a file in it when it is imported."""
    (tmp_path / 'modules').mkdir()
    (tmp_path / 'modules/bundle_trap.py').write_text(
        'open("imported", "w")\ndef run(**kwargs):\n    open("ran", "w")\n'
    )
    (tmp_path / 'here').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / 'modules'))
    monkeypatch.chdir(tmp_path / 'here')
    yield tmp_path
    sys.modules.pop('bundle_trap', None)


def paths(value: Any, at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every part of a header, with where it is."""
    yield at, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths(part, (*at, key))


def changed(header: dict[str, Any], at: Path_, value: Any) -> dict[str, Any]:
    """A copy of a header with another value at a place."""
    header = copy.deepcopy(header)
    parent = header
    for key in at[:-1]:
        parent = parent[key]
    parent[at[-1]] = value
    return header


def configs_of(header: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    """Every part of a header's two configs."""
    for name in ('model', 'pipeline'):
        yield from ((at, part) for at, part in paths(header[name], (name,)))


def assert_refused(folder: Path, header: Any) -> str:
    """A bundle of this header is refused in one sentence, and leaves nothing; the sentence."""
    file = write(folder / 'hostile.safetensors', header)
    with pytest.raises(UserError) as error:
        read_bundle(file)
    said = str(error.value)
    assert '\n' not in said and said.startswith(str(file)) and len(said) < 700, said
    assert not snapshot() and 'bundle_trap' not in sys.modules
    return said


# Types

CALLS = {'type': 'os.mkdir', 'path': 'made', 'name': 'made', 'dim': 4, 'd_bottle': 4}
TYPES = [
    'os.mkdir',
    'os.system',
    'builtins.eval',
    'subprocess.call',
    'bundle_trap.run',
    'mmengine.os.mkdir',
    'mmengine.bundle_trap.run',
    'mmaction.SwinTransformer3D',
    'mmpretrain.VisionTransformer',
    'vpetl_mm.petl.patt.PATT',
    'torchvision/../os.mkdir',
    'torchvision/RandomCrop',
    'BaseModule',
    'HFLinear',
    'ResNet',
    'Pretrained',
    'VisionTransformer\u200b',
    '\uff33winTransformer3D',
    'PAT\u0422',  # a Cyrillic T
    'PATT ',
    'patt',
    '',
    ['os.mkdir'],
    {'type': 'os.mkdir'},
    0,
    True,
    None,
]  # fmt: skip


def test_mmengine_itself_would_import_and_call(traps):
    """Otherwise the tests below could not fail."""
    with pytest.raises(Exception, match='missing'):
        MODELS.build(dict(type='os.mkdir'))
    MODELS.build(dict(type='os.mkdir', path='made'))
    TRANSFORMS.build(dict(type='bundle_trap.run'))
    assert {*snapshot()} == {'made', 'imported', 'ran'}


@pytest.mark.parametrize('host', ['swin3d', 'swin2d'])
def test_no_type_is_looked_up_that_is_not_in_the_list(headers, traps, host):
    header = headers[host]
    typed = [at for at, part in configs_of(header) if isinstance(part, dict) and 'type' in part]
    names = {str(at[-1]) for at in typed}
    assert names >= {'model', 'backbone', 'norm_cfg', 'attention', 'data_preprocessor', *DELTAS}
    assert names & {'cls_head', 'neck'} and len(typed) > 12
    for at in typed:
        part = next(part for place, part in configs_of(header) if place == at)
        for kind in TYPES:
            for hostile in (dict(CALLS, type=kind), dict(part, type=kind)):
                said = assert_refused(traps, changed(header, at, hostile))
                assert '.type is' in said and 'a bundle may have' in said
        for hostile in ('os.mkdir', ['os.mkdir'], 1, True):
            assert_refused(traps, changed(header, at, hostile))


@pytest.mark.parametrize('host', ['swin3d', 'vit'])
def test_a_part_of_the_list_in_another_place_is_refused(headers, traps, host):
    """A pre-processor is no backbone, and a step of the pipeline no norm."""
    header = headers[host]
    typed = [(at, part) for at, part in configs_of(header) if isinstance(part, dict) and 'type' in part]
    for at, part in typed:
        for place, other in typed:
            sections = [p[0] if p[0] == 'pipeline' else 'deltas' if 'deltas' in p else p[-1] for p in (at, place)]
            if sections[0] != sections[1] and part['type'] != other['type']:
                assert_refused(traps, changed(header, at, other))


# Arguments

KEYS = {
    'init_cfg': dict(type='Pretrained', checkpoint='made'),
    'pretrained': 'https://example.org/a.pth',
    'checkpoint': 'a.pth',
    'custom_imports': dict(imports=['bundle_trap']),
    '_base_': '/etc/passwd',
    '_scope_': 'mmengine.os',
    '_delete_': True,
    'patch_cfg': dict(conv_type='os.mkdir'),
    'conv_cfg': dict(type='os.mkdir'),
    'layer_cfgs': dict(ffn_cfg=dict(type='os.mkdir')),
    'file_client_args': dict(backend='os.mkdir'),
    'backend_args': dict(backend='petrel'),
    'io_backend': 'disk',
    'loss_cls': dict(type='os.mkdir'),
    'file': '/etc/passwd',
    'base': dict(file='/etc/passwd'),
    'spt': dict(file='/etc/passwd', structured='LoRA'),
    '__class__': 'os.mkdir',
    'type ': 'os.mkdir',
    'os.mkdir': 'made',
}


@pytest.mark.parametrize('host', ['swin3d', 'vit', 'swin2d'])
def test_no_dict_takes_an_argument_that_is_not_in_the_list(headers, traps, host):
    for at, part in configs_of(headers[host]):
        if isinstance(part, dict):
            for key, value in KEYS.items():
                assert_refused(traps, changed(headers[host], at, dict(part, **{key: value})))


PATHS = ('os.mkdir', '/etc/passwd', '../x', 'https://x', 'hf-hub:a/b', 'a\nb', '\x1b[2J', 'x' * 65, '$(x)')


@pytest.mark.parametrize('host', ['swin3d', 'vit', 'swin2d'])
def test_no_text_has_a_dot_or_a_slash(headers, traps, host):
    """A path, an address and a name to import all have one."""
    texts = [(at, part) for at, part in configs_of(headers[host]) if isinstance(part, str) and at[-1] != 'type']
    assert texts
    for at, _ in texts:
        for value in PATHS:
            assert_refused(traps, changed(headers[host], at, value))


# Sizes

HUGE = 10**400
MODEL = ('model', 'backbone')
LARGE = [
    ('swin3d', (*MODEL, 'arch', 'depths'), [64, 64]),
    ('swin3d', (*MODEL, 'arch', 'depths'), [1] * 1000),
    ('swin3d', (*MODEL, 'arch', 'depths'), [HUGE]),
    ('swin3d', (*MODEL, 'arch', 'embed_dims'), 1 << 40),
    ('swin3d', (*MODEL, 'arch', 'num_heads'), [0]),
    ('swin3d', (*MODEL, 'window_size'), [8, 1 << 20, 7]),
    ('swin3d', (*MODEL, 'window_size'), [True, True, True]),
    ('swin3d', (*MODEL, 'drop_path_rate'), HUGE),
    ('swin3d', ('model', 'cls_head', 'num_classes'), 10**6),
    ('swin3d', ('model', 'cls_head', 'num_classes'), True),
    ('swin3d', ('model', 'petl', 'deltas', 'patt', 'd_bottle'), 1 << 40),
    ('swin3d', ('pipeline', 1, 'clip_len'), 10**6),
    ('swin3d', ('pipeline', 1, 'clip_len'), 'many'),
    ('swin3d', ('pipeline', 1, 'clip_len'), [8, 8]),
    ('swin3d', ('pipeline', 1, 'num_clips'), 1025),
    ('swin3d', ('pipeline', 3, 'scale'), [-1, 8192]),
    ('swin3d', ('pipeline', 3, 'scale'), [8193, 24]),
    ('swin3d', ('pipeline', 3, 'scale'), 100.0),
    ('swin3d', ('pipeline', 0), dict(type='DecordInit', num_threads=10**6)),
    ('vit', (*MODEL, 'img_size'), 10**6),
    ('vit', (*MODEL, 'arch', 'num_layers'), 65),
    ('vit', (*MODEL, 'arch', 'feedforward_channels'), -1),
    ('vit', (*MODEL, 'norm_cfg', 'eps'), 'small'),
    ('vit', (*MODEL, 'norm_cfg', 'eps'), [[1]]),
    ('vit', ('model', 'data_preprocessor', 'pad_size_divisor'), 10**6),
    ('vit', ('model', 'data_preprocessor', 'mean'), [0.0] * 2000),
    ('vit', ('pipeline',), [dict(type='PackInputs')] * 51),
    ('vit', ('pipeline',), []),
]


@pytest.mark.parametrize(('host', 'at', 'value'), LARGE)
def test_a_size_is_refused_before_memory_is_taken(headers, traps, host, at, value):
    header = changed(headers[host], at, value)
    said = assert_refused(traps, json.dumps(header))
    assert 'its header is not JSON' not in said


def test_so_are_many_deltas_and_their_names(headers, traps):
    delta = headers['vit']['model']['petl']['deltas']['patt']
    for deltas in (
        {f'd{i}': delta for i in range(257)},
        *({n: delta} for n in ('_scope_', 'a.b', 'ä', '', '__class__')),
    ):
        assert_refused(traps, changed(headers['vit'], ('model', 'petl', 'deltas'), deltas))


def test_a_command_says_so_in_one_sentence_and_writes_nothing(headers, traps, capsys):
    bundle = changed(headers['swin3d'], ('model', 'backbone'), dict(CALLS))
    file = write(traps / 'hostile.safetensors', bundle)
    for command in (('info', file), ('verify', file), ('card', file)):
        assert call('adapter', *command) == 2 and not snapshot()
        printed = capsys.readouterr()
        assert printed.err.startswith(f'error: {file} cannot be used: model.backbone.type') and not printed.out
        assert printed.err.count('\n') == 1


def test_what_was_not_changed_is_read(headers, traps):
    for host, header in headers.items():
        about = read_about(write(traps / f'{host}.safetensors', header))
        assert about.is_video == (host == 'swin3d') and about.num_classes == 3
