"""Bundles of models of timm and of transformers: the same model elsewhere, and nothing that a stranger can misuse."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from packed import NORMS, PIPELINES, content_of, run_of, write, write_config
from safetensors.torch import load_file, save_file
from test_allowed import assert_refused
from tiny import classify, randomised, refused

from tools import REPO
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import bundled_model
from vpetl_mm.use.bundle.packing import pack
from vpetl_mm.use.export.exporting import export

SMALL = dict(embed_dim=16, depth=2, num_heads=2)
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
BACKBONES = {
    'timm': dict(type='TimmBackbone', model='vit_tiny_patch16_224', img_size=32, options=SMALL),
    'dinov3': dict(type='TimmBackbone', model='vit_small_patch16_dinov3.lvd1689m', img_size=32, options=SMALL),
    'dinov2': dict(type='HFBackbone', config=dict(model_type='dinov2', **SIZES)),
    'videomae': dict(
        type='HFBackbone', config=dict(model_type='videomae', intermediate_size=32, num_frames=4, **SIZES)
    ),
}
DELTAS = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2))
LORA = dict(lora=dict(type='LoRA', at='qkv', slots='qv', rank=2))


def config_of(name: str, deltas: dict[str, Any] = DELTAS, video: bool = False, base: Any = None) -> dict[str, Any]:
    """A config whose inputs are normalised as the library says."""
    video = video or name == 'videomae'
    head = dict(num_classes=3, in_channels=16, type='PETLTokenHead' if video else 'PETLImageHead')
    model = dict(
        type='PETLRecognizer3D' if video else 'PETLImageClassifier',
        backbone=copy.deepcopy(BACKBONES[name]),
        petl=dict(deltas=deltas, train=['head']),
        base=base,
    )
    model['cls_head' if video else 'head'] = head
    return dict(default_scope='mmaction' if video else 'mmpretrain', model=model, randomness=dict(seed=0))


def bundle(folder: Path, config: dict[str, Any]) -> tuple[torch.nn.Module, Path]:
    """The model of a run, and its bundle."""
    run = run_of(folder, config)
    steps = [dict(step) for step in PIPELINES[config['default_scope']]]
    for step in steps:
        step.update({k: {'scale': (-1, 32) if step['type'] == 'Resize' else 32, 'crop_size': 32}[k] for k in step
                     if k in ('scale', 'crop_size')})  # fmt: skip
    loader = dict(dataset=dict(type='Any', ann_file='data/small/test.txt', pipeline=steps))
    file = write_config(folder / 'small.py', dict(config, test_dataloader=loader))
    return run.model, pack(file, run.checkpoint, folder / 'b.safetensors')


def inputs(config: dict[str, Any]) -> torch.Tensor:
    frames = (4,) if config['default_scope'] == 'mmaction' else ()
    return torch.randn(2, 3, *frames, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(('name', 'video'), [*((n, False) for n in BACKBONES), ('timm', True)])
def test_the_model_of_a_bundle_gives_the_same_scores(name, video, tmp_path):
    config = config_of(name, video=video)
    model, file = bundle(tmp_path, config)
    header, _ = content_of(file)
    assert header['model']['data_preprocessor']['mean'] and header['license'] == 'unknown'
    loaded, x = bundled_model(read_bundle(file)), inputs(config)
    with torch.no_grad():
        assert torch.equal(classify(loaded, x), classify(model, x))


def test_a_base_its_license_and_another_process(tmp_path, monkeypatch):
    source = randomised(timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=5, **SMALL))
    save_file(source.state_dict(), tmp_path / 'base.safetensors')
    (tmp_path / 'README.md').write_text('---\nlicense: cc-by-nc-4.0\n---\n')
    config = config_of('timm', base=dict(file=str(tmp_path / 'base.safetensors')))
    model, file = bundle(tmp_path, config)
    header, tensors = content_of(file)
    assert header['license'] == 'cc-by-nc-4.0 (that of its base)'
    assert not any('.deltas.' not in k for k in tensors if k.startswith('backbone.')), 'the base is not in it'
    program = (
        'import sys, torch\nfrom vpetl_mm.use.bundle.bundle import read_bundle\n'
        'from vpetl_mm.use.bundle.model import bundled_model\n'
        'model = bundled_model(read_bundle(sys.argv[1]), sys.argv[2])\n'
        'x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))\n'
        'torch.save(model(x, mode="tensor"), sys.argv[3])\n'
    )
    argv = [sys.executable, '-c', program, file, tmp_path / 'base.safetensors', tmp_path / 'y.pt']
    subprocess.run(argv, check=True, capture_output=True, cwd=REPO)
    with torch.no_grad():
        wanted = classify(model, inputs(config))
    torch.testing.assert_close(torch.load(tmp_path / 'y.pt'), wanted, rtol=1e-6, atol=1e-6)


def test_a_folder_becomes_a_description_and_no_path_is_packed(tmp_path):
    sizes = dict(SIZES, intermediate_size=32)
    transformers.ViTConfig(**sizes).save_pretrained(tmp_path / 'secret_folder')
    config = config_of('timm')
    config['model'] |= dict(
        backbone=dict(type='HFBackbone', model=str(tmp_path / 'secret_folder')), data_preprocessor=NORMS
    )
    _, file = bundle(tmp_path, config)
    header, _ = content_of(file)
    assert 'secret' not in str(header) and header['model']['backbone']['config']['model_type'] == 'vit'
    bundled_model(read_bundle(file))


@pytest.mark.parametrize(('name', 'suffix'), [('timm', '.onnx'), ('dinov3', '.pt2'), ('dinov2', '.pt2')])
def test_a_graph_has_the_same_logits(name, suffix, tmp_path):
    _, file = bundle(tmp_path, config_of(name))
    assert export(file, tmp_path / f'out{suffix}').difference < 1e-5


def test_lora_merged_is_timms_own_model(tmp_path):
    model, file = bundle(tmp_path, config_of('timm', LORA))
    with refused('pth is for models of mmaction2'):
        export(file, tmp_path / 'out.pth')
    export(file, tmp_path / 'out.safetensors')
    plain = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=3, **SMALL).eval()
    state = {k.removeprefix('backbone.model.'): v for k, v in load_file(tmp_path / 'out.safetensors').items()}
    state |= {f'head.{p}': state.pop(f'head.fc.{p}') for p in ('weight', 'bias')}
    plain.load_state_dict(state)
    x = inputs(config_of('timm'))
    with torch.no_grad():
        torch.testing.assert_close(plain(x), classify(model, x), rtol=1e-5, atol=1e-5)


# A stranger's


HOSTILE: list[tuple[str, tuple[str, ...], Any]] = [
    *(
        ('timm', ('model',), v)
        for v in ('hf-hub:a/b', 'local-dir:/etc', '/etc/passwd', '../x', 'timm/vit', 3, None, '')
    ),
    *(('timm', ('options', k), 'x') for k in ('pretrained', 'checkpoint_path', 'pretrained_cfg', 'cache_dir')),
    *(('timm', ('options', k), 'os.system') for k in ('norm_layer', 'act_layer', 'block_fn', 'embed_layer')),
    *(('timm', ('options', k), 10**9) for k in ('depth', 'embed_dim', 'patch_size', 'num_heads', 'reg_tokens')),
    ('timm', ('options', 'depth'), [64, 64]),
    ('timm', ('options', 'depths'), [60, 60]),
    ('timm', ('options',), [1]),
    ('timm', ('img_size',), 8192),
    ('timm', ('img_size',), [2**40, 2]),
    ('timm', ('pretrained',), True),
    ('dinov2', ('model',), 'facebook/dinov2-small'),
    ('dinov2', ('config',), None),
    ('dinov2', ('config',), 'dinov2'),
    *(('dinov2', ('config', 'model_type'), v) for v in ('bert', 'timm_wrapper', 'timm_backbone', '../x', 3, None)),
    *(
        ('dinov2', ('config', k), v)
        for k, v in dict(auto_map={'AutoModel': 'a--b.C'}, _name_or_path='/x', trust_remote_code=True).items()
    ),
    *(
        ('dinov2', ('config', k), 'a/b')
        for k in ('attn_implementation', '_attn_implementation', 'quantization_config')
    ),
    *(('dinov2', ('config', k), 10**9) for k in ('hidden_size', 'num_hidden_layers', 'image_size')),
    ('dinov2', ('config', 'hidden_act'), 'os.system'),
    ('videomae', ('config', 'image_size'), 2048),
    ('videomae', ('config',), dict(model_type='videomae', hidden_size=2**14, image_size=512, patch_size=8)),
]


@pytest.fixture(scope='module')
def headers(tmp_path_factory) -> dict[str, Any]:
    return {n: content_of(bundle(tmp_path_factory.mktemp(n), config_of(n))[1])[0] for n in BACKBONES}


@pytest.mark.parametrize(('name', 'at', 'value'), HOSTILE, ids=str)
def test_what_a_stranger_may_not_say(name, at, value, headers, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    header = copy.deepcopy(headers[name])
    part = header['model']['backbone']
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = value
    assert 'model.backbone' in assert_refused(tmp_path, header)


def test_numbers_that_make_a_model_larger_than_the_files_are_refused_on_the_meta_device(headers, tmp_path):
    for name, at, value in (('timm', 'options', dict(SMALL, embed_dim=8192)), ('dinov2', 'config', None)):
        header = copy.deepcopy(headers[name])
        backbone = header['model']['backbone']
        backbone[at] = value or dict(backbone['config'], hidden_size=8192)
        header['model']['head']['in_channels'] = 8192
        file = write(tmp_path / f'{name}.safetensors', header)
        with pytest.raises(ValueError, match=r'is for another config|is broken'):
            bundled_model(read_bundle(file))
