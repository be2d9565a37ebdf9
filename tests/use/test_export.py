"""tools/export.py: files that run without this package, and say what the model says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from exportable import CLASSES, LORA, packed_with, pipeline, scores_of, small_bundle, through
from onnx import load as load_onnx
from packed import base_of, bundle_of
from PIL import Image
from tiny import HOSTS

from tools import call, refused
from vpetl_mm.config import load_config
from vpetl_mm.datasets.demo_clips import write_clip
from vpetl_mm.petl import PATT
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import bundled_model
from vpetl_mm.use.export.portable import SmallTables

REPO = Path(__file__).parents[2]
BAPAT = dict(
    patt=dict(type='PATT', at='qkv', d_bottle=4), adapter=dict(type='AdaptMLP', at='mlp', d_bottle=4, scale=0.5)
)

# one wide stage of the demo's model, with shifted windows
DEMO = {
    'model.base': None,
    'model.petl.train': ['all'],
    'model.backbone.arch': dict(embed_dims=96, depths=[2], num_heads=[3]),
    'model.backbone.window_size': (2, 4, 4),
    'model.backbone.out_indices': (0,),
    'model.cls_head.in_channels': 96,
}


@pytest.fixture
def clips(elsewhere) -> list[Path]:
    """Three clips, real ones where they are at hand."""
    real = sorted((REPO.parent / 'shared/data/clips').glob('*.mp4'))[:3]
    rng = np.random.default_rng(0)
    for i in range(0 if real else 3):
        real.append(elsewhere / f'{i}.mp4')
        write_clip(real[-1], rng.integers(0, 256, (24, 32 + 8 * i, 48, 3), dtype=np.uint8))
    return real


@pytest.fixture
def demo_bundle(elsewhere) -> Path:
    """The demo's model, on the centre of real clips."""
    cfg = load_config('configs/demo_bapat.py', DEMO)
    cfg.test_dataloader.dataset.pipeline = pipeline((3, 8, 32, 32))
    return packed_with(cfg, elsewhere / 'bapat.safetensors', [f'motion {i}' for i in range(8)])


def weights_of(bundle: Path) -> int:
    return sum(p.nbytes for p in bundled_model(read_bundle(bundle)).parameters())


def test_onnx_says_of_real_clips_what_the_test_says(clips, demo_bundle, capsys):
    assert call('export', demo_bundle, 'bapat.onnx', '--check', *clips) == 0
    said = capsys.readouterr().out
    assert said.startswith('exported: bapat.onnx') and 'on 3 of your inputs' in said
    assert Path('bapat.onnx').stat().st_size <= 1.15 * weights_of(demo_bundle)

    bundle = read_bundle(demo_bundle)
    samples = through(bundle.about.pipeline, clips, 'mmaction')
    pixels = np.stack([sample['inputs'][0].numpy() for sample in samples])
    session = onnxruntime.InferenceSession('bapat.onnx')
    logits, probabilities = session.run(['logits', 'probabilities'], {'pixels': pixels})
    expected = scores_of(bundled_model(bundle), samples)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected.softmax(-1), atol=1e-5)
    for n in (1, 2):
        np.testing.assert_allclose(session.run(['logits'], {'pixels': pixels[:n]})[0], logits[:n], atol=1e-5)

    notes = {prop.key: prop.value for prop in load_onnx('bapat.onnx').metadata_props}
    assert json.loads(notes['classes']) == [f'motion {i}' for i in range(8)]
    assert '(batch, 3, 8, 32, 32)' in notes['input'] and notes['license'] == 'unknown'
    assert str(REPO) not in Path('bapat.onnx').read_bytes().decode(errors='replace')


def test_pt2_of_a_fixed_batch(clips, demo_bundle, capsys):
    assert call('export', demo_bundle, 'bapat.pt2', '--batch', '2', '--check', *clips) == 0
    assert Path('bapat.pt2').stat().st_size <= 1.15 * weights_of(demo_bundle)
    notes = {'classes': '', 'input': ''}
    program = torch.export.load('bapat.pt2', extra_files=notes)
    assert json.loads(notes['classes'])[7] == 'motion 7' and '(2, 3, 8, 32, 32)' in notes['input']
    bundle = read_bundle(demo_bundle)
    samples = through(bundle.about.pipeline, clips[:2], 'mmaction')
    logits, _ = program.module()(torch.stack([sample['inputs'][0] for sample in samples]))
    torch.testing.assert_close(logits, scores_of(bundled_model(bundle), samples), atol=1e-5, rtol=0)
    assert not any('/' in str(node.meta.get('stack_trace', '')) for node in program.graph.nodes)


def test_images_are_given_in_rgb(elsewhere, capsys):
    """The pipeline ends in BGR; who uses the file has RGB. Without inputs of the user's, two are made."""
    bundle = small_bundle(elsewhere, 'vit', BAPAT)
    assert call('export', bundle, 'vit.onnx') == 0
    assert 'generated inputs' in capsys.readouterr().out
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).save('image.png')
    pixels = image.transpose(2, 0, 1)[None]
    found = onnxruntime.InferenceSession('vit.onnx').run(['probabilities'], {'pixels': pixels})[0]
    read = read_bundle(bundle)
    expected = scores_of(bundled_model(read), through(read.about.pipeline, [Path('image.png')], 'mmpretrain'))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_plain_model_opens_in_its_own_library(clips, capsys):
    """mmaction2's init_recognizer and mmpretrain's get_model, in a process that never imports this package."""
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save('image.png')
    expected, folder = {}, Path('plain')
    folder.mkdir()
    for name, spt in (('swin3d', False), ('vit', True)):
        bundle = small_bundle(Path.cwd(), name, {} if spt else LORA, spt)
        assert call('export', bundle, folder / f'{name}.pth') == 0
        given = Path('image.png') if name == 'vit' else clips[0]
        (folder / f'{name}.txt').write_text(str(given.absolute()))
        read = read_bundle(bundle)
        model = bundled_model(read)
        expected[name] = scores_of(model, through(read.about.pipeline, [given], read.about.default_scope))[0]
    assert 'config: plain/vit.py' in capsys.readouterr().out
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    argv = [sys.executable, Path(__file__).with_name('plain_loading.py'), folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: kind for name, (kind, _) in found.items()} == dict(swin3d='Recognizer3D', vit='ImageClassifier')
    for name, (_, scores) in found.items():
        np.testing.assert_allclose(scores, expected[name], atol=1e-5)


def test_what_cannot_be_exported_is_refused(elsewhere, capsys, monkeypatch):
    bapat, lora = elsewhere / 'bapat', elsewhere / 'lora'
    for folder, deltas in ((bapat, BAPAT), (lora, LORA)):
        folder.mkdir()
        small_bundle(folder, 'swin3d', deltas)
    bapat, lora = (folder / 'swin3d.safetensors' for folder in (bapat, lora))
    base = dict(file=str(base_of(HOSTS['swin3d'], elsewhere)))
    based = bundle_of(elsewhere, HOSTS['swin3d'].config(BAPAT, base=base), 'based')
    Path('there.onnx').touch()
    Path('there.py').touch()
    Path('noise.mp4').write_bytes(b'noise')
    Path('image.png').touch()
    for words, argv in (
        (('there.onnx exists',), [bapat, 'there.onnx']),
        (('there.py exists',), [lora, 'there.pth']),
        (('.tflite', '.onnx', '.pt2', '.pth'), [bapat, 'a.tflite']),
        (('folder does not exist',), [bapat, 'nowhere/a.onnx']),
        (('needs its base', '--base FILE'), [based, 'a.onnx']),
        (('PATT', 'backbone.layers.0.blocks.0.attn.qkv', '.onnx or .pt2'), [bapat, 'a.pth']),
        (('batch size',), [lora, 'a.safetensors', '--batch', '2']),
        (('gone.mp4 does not exist',), [bapat, 'a.onnx', '--check', 'gone.mp4']),
        (('image.png is an image',), [bapat, 'a.pt2', '--check', 'image.png']),
        (('noise.mp4: ',), [bapat, 'a.pt2', '--check', 'noise.mp4']),
        (('does not exist',), ['gone.safetensors', 'a.onnx']),
    ):
        error = refused(capsys, 'export', *argv)
        assert all(word in error for word in words) and error.count('\n') == 1, error
    monkeypatch.setattr('vpetl_mm.use.export.programs.find_spec', lambda name: None if name == 'onnx' else True)
    assert 'pip install -e .[export]' in refused(capsys, 'export', bapat, 'a.onnx')


def test_a_size_that_only_a_clip_can_tell(elsewhere, capsys):
    steps = [s for s in pipeline((3, 4, 24, 24)) if s['type'] not in ('Resize', 'CenterCrop')]
    bundle = small_bundle(elsewhere, 'swin3d', BAPAT, test_dataloader=dict(dataset=dict(pipeline=steps)))
    assert 'with --check' in refused(capsys, 'export', bundle, 'a.pt2')
    rng = np.random.default_rng(0)
    for side in (24, 32):
        write_clip(Path(f'{side}.mp4'), rng.integers(0, 256, (9, side, 24, 3), dtype=np.uint8))
    error = refused(capsys, 'export', bundle, 'a.pt2', '--check', '24.mp4', '32.mp4')
    assert '32.mp4 becomes 4 x 32 x 24 and 24.mp4 4 x 24 x 24' in error


def test_a_file_that_differs_is_not_kept(elsewhere, capsys, monkeypatch):
    """The sentence names input, class and the block where it begins."""
    bundle = small_bundle(elsewhere, 'swin3d', BAPAT)
    right = SmallTables.keep_small
    monkeypatch.setattr(SmallTables, 'keep_small', lambda self, mask: right(self, None if mask is None else mask * 0))
    error = refused(capsys, 'export', bundle, 'a.pt2')
    assert 'The file was deleted' in error and any(name in error for name in CLASSES)
    assert 'backbone.layers.0.blocks.1' in error, 'the only shifted block'


def test_a_delta_that_depends_on_its_values_is_refused(elsewhere, capsys, monkeypatch):
    bundle = small_bundle(elsewhere, 'vit', BAPAT)
    forward = PATT.forward
    monkeypatch.setattr(PATT, 'forward', lambda self, x: forward(self, x if x.max() > 0 else -x))
    error = refused(capsys, 'export', bundle, 'a.pt2')
    assert 'cannot be exported' in error and error.count('\n') == 1, error
