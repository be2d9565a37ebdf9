"""Adapter files: every part is checked before one is believed, and OpenMMLab's own tools do not answer from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from mmaction.apis import init_recognizer
from mmaction.apis.inferencers import ActionRecogInferencer
from mmaction.registry import MODELS
from mmengine import Config
from mmengine.runner import load_checkpoint
from mmpretrain.apis import get_model
from torch import nn

from vpetl_mm import UserError, build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, load_trained, trained_meta
from vpetl_mm.engine.checkpoint import NEEDED, OPTIONAL, read_checkpoint

DELTAS = dict(patt=dict(type='PATT', at='qkv', d_bottle=4))
SWIN, VIT = tiny.HOSTS['swin3d'], tiny.HOSTS['vit']
META = dict(
    epoch=3,
    iter=12,
    seed=1,
    cfg='model = dict()',
    time='20260102_030405',
    experiment_name='small',
    mmengine_version='0.10.7',
    dataset_meta=dict(classes=['a', 'b', 'c']),
    options={'train_cfg.max_epochs': 3, 'model.base': None, 'optim_wrapper': dict(lr=0.1)},
)


def model_of(host: tiny.Host, train: tuple[str, ...] = ('head',), deltas: dict | None = DELTAS) -> nn.Module:
    return build_model(host.config(deltas, train, seed=1), init_weights=True).eval()


def save(model: nn.Module, file: Path, old: bool = False) -> Path:
    """An adapter as AdapterHook leaves it; ``old``: as it did before OpenMMLab's loaders were thought of."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.uniform_(-1, 1)
    state = adapter_state(model)
    meta = dict(META, adapter_format=FORMAT, **trained_meta(model))
    torch.save(dict(state_dict=dict(state) if old else state, meta=meta), file)
    return file


# What is wrong with a file

KEY = 'cls_head.fc_cls.weight'


def in_state(change: Callable[[torch.Tensor], object]) -> Callable[[dict], None]:
    def spoil(content: dict) -> None:
        content['state_dict'][KEY] = change(content['state_dict'][KEY])

    return spoil


def in_meta(name: str, value: object) -> Callable[[dict], None]:
    return lambda content: content['meta'].update({name: value})


def poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(weight: torch.Tensor) -> torch.Tensor:
        weight[0, 0] = value
        return weight

    return change


NESTED: list = []
for _ in range(30):
    NESTED = [NESTED, NESTED]
TYPES = (torch.float64, torch.int32, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)
WRONG = {
    **{f'of {dtype}': (in_state(lambda w, d=dtype: w.to(d)), KEY) for dtype in TYPES},
    **{
        f'{v}': (in_state(poisoned(v)), f'{KEY} holds numbers that are not finite')
        for v in (float('nan'), float('inf'))
    },
    'sparse': (in_state(lambda w: w.to_sparse()), f'{KEY} is float32 .*sparse'),
    'quantized': (in_state(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)), KEY),
    'of another shape': (in_state(lambda w: w[0]), KEY),
    'meta': (in_state(lambda w: w.to('meta')), KEY),
    'a list for a tensor': (in_state(lambda w: w.tolist()), KEY),
    'None for a tensor': (in_state(lambda w: None), KEY),
    'a text for a tensor': (in_state(lambda w: 'weights'), KEY),
    'a dict for a tensor': (in_state(lambda w: {}), KEY),
    'a number for a name': (lambda content: content['state_dict'].update({3: torch.ones(1)}), '3'),
    'a name of two lines': (lambda content: content['state_dict'].update({'a\nb': torch.ones(1)}), r'a\\nb'),
    'a further tensor': (lambda content: content['state_dict'].update(more=torch.ones(1)), 'more'),
    'no state_dict': (lambda content: content.pop('state_dict'), 'state_dict'),
    'a list of tensors': (lambda content: content.update(state_dict=[torch.ones(1)]), 'state_dict'),
    'no meta': (lambda content: content.pop('meta'), 'not a checkpoint of this project'),
    'a list for meta': (lambda content: content.update(meta=[1]), 'not a checkpoint of this project'),
    **{f'no {name}': (lambda content, n=name: content['meta'].pop(n), '.') for name in NEEDED},
    **{
        f'{name} is {value!r:.20}': (in_meta(name, value), rf'meta\.{name}|adapter')
        for name in (*NEEDED, *OPTIONAL)
        for value in (True, 1.5, ['a'], torch.ones(1), -1, b'a', {1: 2})
        if (name, value) != ('adapter_format', True) and not (name in ('options', 'dataset_meta') and value == {1: 2})
    },
    'a base without a sha256': (in_meta('base', dict(file='a.pth')), r'meta\.base'),
    'a base whose file is a number': (in_meta('base', dict(file=1, sha256='0' * 64)), r'meta\.base'),
    'a base whose sha256 is short': (in_meta('base', dict(file='a.pth', sha256='0')), r'meta\.base'),
    'a base of two lines': (in_meta('base', dict(file='a\nb', sha256='0' * 64)), r'meta\.base'),
    'deltas without options': (in_meta('deltas', dict(patt=3)), r'meta\.deltas'),
    'an option without a name': (in_meta('deltas', dict(patt={1: 2})), r'meta\.deltas'),
    'a delta made of tensors': (in_meta('deltas', dict(patt=dict(scale=torch.ones(1)))), r'meta\.deltas'),
    'a delta that holds itself often': (in_meta('deltas', dict(patt=dict(scale=NESTED))), 'nested too deeply'),
    'an option of tensors': (in_meta('options', dict(lr=torch.ones(1))), r'meta\.options'),
    'a seed of 33 bits': (in_meta('seed', 1 << 32), r'meta\.seed'),
    'a number for the classes': (in_meta('dataset_meta', dict(classes=3)), r'meta\.dataset_meta'),
    'a number for a class': (in_meta('dataset_meta', dict(classes=['a', 3])), r'meta\.dataset_meta'),
    'a config that mmengine would run': (in_meta('config', 'import os'), r'meta\.config'),
    'another format': (in_meta('adapter_format', 2), r'meta\.adapter_format'),
}


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return model_of(SWIN)


@pytest.fixture(scope='module')
def good(tmp_path_factory) -> Path:
    return save(model_of(SWIN), tmp_path_factory.mktemp('adapter') / 'a.pth')


@pytest.mark.parametrize(('spoil', 'said'), WRONG.values(), ids=WRONG)
def test_a_part_that_is_wrong_is_named_and_nothing_is_loaded(model, good, tmp_path, spoil, said):
    before = copy.deepcopy(model.state_dict())
    content = torch.load(good, weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=said) as error:
        load_trained(model, tmp_path / 'a.pth')
    assert '\n' not in str(error.value) and len(str(error.value)) < 500
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        (
            'a.pth',
            b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
            r'a\.pth is not a checkpoint: .*git lfs pull',
        ),
        ('a.pth', b'', 'it is empty'),
        ('test.txt', b'a.mp4 0\n', 'it is text, not weights'),
        ('a.pth', b'\x02' + bytes(7) + b'{}', 'a file of safetensors, not of torch'),
        ('run', None, r'run is a folder; it holds .*adapter_epoch_1\.pth: name a file'),
        ('none.pth', None, r'The checkpoint .*none\.pth does not exist'),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, name, content, said):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/adapter_epoch_1.pth').touch()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_fewer_bits_are_widened_without_loss(good, tmp_path, dtype):
    content = torch.load(good, weights_only=True)
    content['state_dict'] = {k: v.to(dtype) if v.is_floating_point() else v for k, v in content['state_dict'].items()}
    torch.save(content, tmp_path / 'a.pth')
    fresh = model_of(SWIN)
    load_trained(fresh, tmp_path / 'a.pth')
    assert all(
        torch.equal(fresh.state_dict()[k], v.to(fresh.state_dict()[k].dtype))
        for k, v in content['state_dict'].items()
    )


# In OpenMMLab's own tools


def plain(config: dict) -> Config:
    """The same experiment without this project: a model of the host library."""
    model = copy.deepcopy(config['model'])
    for key in ('petl', 'base'):
        del model[key]
    model['type'] = model['type'].removeprefix('PETL')
    if 'cls_head' in model:
        model['cls_head']['type'] = 'I3DHead'
        model['cls_head']['spatial_type'] = 'avg'
    else:
        model['head']['type'] = 'LinearClsHead'
    return Config(dict(config, model=model))


PIPELINE = [dict(type='DecordInit'), dict(type='DecordDecode'), dict(type='PackActionInputs')]
LOADED = dict(test_dataloader=dict(dataset=dict(pipeline=PIPELINE)))
OPENED = {
    'mmengine': lambda config, file: load_checkpoint(build_model(config), file, map_location='cpu'),
    'init_recognizer': lambda config, file: init_recognizer(config, file, 'cpu'),
    'inferencer': lambda config, file: ActionRecogInferencer(Config(dict(config, **LOADED)), file, 'cpu'),
    'get_model': lambda config, file: get_model(config, pretrained=file, device='cpu'),
}
OPENERS = [(SWIN, 'mmengine'), (SWIN, 'init_recognizer'), (SWIN, 'inferencer'), (VIT, 'mmengine'), (VIT, 'get_model')]
each = pytest.mark.parametrize(('host', 'opened'), OPENERS, ids=lambda v: v if isinstance(v, str) else '')


@each
@pytest.mark.parametrize('old', [False, True], ids=['new', 'old'])
def test_they_refuse_an_adapter_in_a_sentence(host, opened, old, tmp_path):
    file = save(model_of(host), tmp_path / 'a.pth', old)
    with pytest.raises(UserError, match=r'holds no backbone.*tools/test\.py'):
        OPENED[opened](Config(host.config(DELTAS, seed=1)), str(file))


@pytest.mark.parametrize(('host', 'opened'), [o for o in OPENERS if o[1] != 'mmengine'])
def test_a_plain_model_of_theirs_ends_too(host, opened, tmp_path):
    """Nothing of this project is asked there."""
    file = save(model_of(host), tmp_path / 'a.pth')
    with pytest.raises(AttributeError, match="'str' object"):
        OPENED[opened](plain(host.config(DELTAS)), str(file))
    with pytest.raises(AttributeError, match="'str' object"):
        load_checkpoint(MODELS.build(plain(SWIN.config()).model), str(file))


@each
def test_a_file_with_the_whole_backbone_works_there(host, opened, tmp_path):
    full = model_of(host, ('all',))
    file = save(full, tmp_path / 'a.pth')
    model = OPENED[opened](Config(host.config(DELTAS, ('all',), seed=1)), str(file))
    if isinstance(model, nn.Module):
        assert all(torch.equal(v, full.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_file_that_was_read_is_loaded_by_hand_into_a_model_with_its_base(good):
    fresh = model_of(SWIN)
    state = torch.load(good, weights_only=True)['state_dict']
    assert not fresh.load_state_dict(state, strict=False).unexpected_keys
    assert all(torch.equal(fresh.state_dict()[k], v) for k, v in state.items())
