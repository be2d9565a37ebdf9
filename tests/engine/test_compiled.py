"""The compiled backbone beside the plain one: what is refused, keys, outputs, gradients, a training run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from mmengine import Config
from small_experiment import SGD, adapter, assert_same

from vpetl_mm import UserError, build_model
from vpetl_mm.engine.compiled import check_compiled, compile_backbone
from vpetl_mm.engine.experiment import train

EAGER = dict(backend='eager')
BAPAT = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        *((dict(compile_backbone=v), 'True, False or a dict') for v in ('yes', 1, None, ['eager'], 0.5)),
        (dict(compile_backbone=dict(foo=1)), 'does not take compile_backbone'),
        (dict(compile_backbone=dict(mode='bogus')), 'does not take compile_backbone'),
        (dict(compile_backbone=dict(backend='nonsense')), 'does not take compile_backbone'),
        (dict(model=dict(petl=dict(gelu='8bit')), compile_backbone=True), 'decides by itself'),
        (dict(compile=True), 'set compile_backbone=True'),  # mmengine's own key
        (dict(compile=dict(backend='inductor')), 'set compile_backbone=True'),
    ],
    ids=str,
)
def test_what_cannot_be_compiled_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        check_compiled(Config(wrong))


@pytest.mark.parametrize('asked', [{}, dict(compile_backbone=False), dict(compile=False)], ids=repr)
def test_without_it_no_compiler_is_needed(no_compiler, asked):
    check_compiled(Config(asked))


@pytest.mark.parametrize('asked', [True, {}, dict(mode='reduce-overhead')], ids=repr)
def test_a_missing_compiler_is_named(no_compiler, asked):
    with pytest.raises(UserError, match=r'needs a C\+\+ compiler'):
        check_compiled(Config(dict(compile_backbone=asked)))


@pytest.mark.parametrize('name', ['g++', 'c++', 'clang++', 'CXX'])
def test_any_compiler_will_do(no_compiler, monkeypatch, tmp_path, name):
    compiler = Path(tmp_path, 'my-own' if name == 'CXX' else name)
    compiler.write_text('#!/bin/sh\n')
    compiler.chmod(0o755)
    if name == 'CXX':
        monkeypatch.setenv('CXX', str(compiler))
    check_compiled(Config(dict(compile_backbone=True)))


def test_false_compiles_nothing():
    model = tiny.tiny(BAPAT)
    compile_backbone(model, False)
    assert model.backbone._compiled_call_impl is None
    compile_backbone(model, True)
    assert model.backbone._compiled_call_impl is not None


def pair(name: str, deltas: dict, train: list[str], **options):
    """A plain model and a compiled one of the same weights."""
    plain, compiled = (tiny.HOSTS[name].build(deltas, train, **options) for _ in range(2))
    keys = list(plain.state_dict())
    compile_backbone(compiled, EAGER)
    assert compiled.backbone._compiled_call_impl is not None
    assert list(compiled.state_dict()) == keys
    assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in plain.named_parameters()]
    return plain, compiled


def step(model, x):
    model.zero_grad()
    torch.manual_seed(0)
    y = model.backbone(x)
    y = y[-1] if isinstance(y, tuple) else y
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return dict(y=y.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize('name', ['swin3d', 'videomae', 'swin2d'])
def test_outputs_and_gradients(name):
    plain, compiled = pair(name, BAPAT, ['all'])
    theirs, ours = (step(m.train(), tiny.HOSTS[name].sample()) for m in (plain, compiled))
    assert_same(theirs, ours, atol=1e-5, rtol=1e-5)


def test_drop_path_and_a_last_smaller_batch():
    plain, compiled = pair('swin3d', dict(patt=BAPAT['patt']), ['head'], drop_path_rate=0.5)
    for batch in (3, 2):
        x = torch.randn(batch, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        theirs, ours = (step(m.train(), x) for m in (plain, compiled))
        assert_same(theirs, ours, atol=1e-5, rtol=1e-5)


def test_8_bit_gelu_is_exact_in_compiled_code():
    plain, _ = pair('vit', {}, ['all'])
    _, compiled = pair('vit', {}, ['all'], petl=dict(gelu='8bit'))
    x = tiny.VIT.sample()
    assert_same(step(plain, x), step(compiled, x), atol=1e-5, rtol=1e-5)


def test_a_block_is_one_graph():
    model = build_model(tiny.config(BAPAT, ['head'], depths=(1,)))
    compile_backbone(model, dict(EAGER, fullgraph=True))
    assert model.backbone(tiny.clip(2, (4, 32, 32))).isfinite().all()


def test_the_head_is_not_compiled_and_weights_are_read_anew():
    plain, compiled = pair('vit', BAPAT, ['head'])
    x = tiny.VIT.sample()
    compiled.backbone(x)
    assert compiled._compiled_call_impl is None and compiled.head._compiled_call_impl is None
    other = tiny.VIT.build(BAPAT, ['head'], seed_weights=5)
    compiled.load_state_dict(other.state_dict())
    torch.testing.assert_close(tiny.features(compiled, x), tiny.features(other, x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tiny.features(compiled, x), tiny.features(plain, x))


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='no C++ compiler')
def test_real_code(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    plain, compiled = (tiny.VIT.build(dict(patt=BAPAT['patt']), ['head'], depth=1) for _ in range(2))
    compile_backbone(compiled, True)
    x = tiny.VIT.sample()
    torch.testing.assert_close(tiny.features(compiled, x), tiny.features(plain, x), atol=1e-5, rtol=1e-5)
    assert any(tmp_path.rglob('*.so')), 'something was compiled'


def test_a_training_run(ready, tmp_path):
    """The same adapter, up to rounding, under the same keys."""
    few = dict(train_cfg__max_epochs=1, train_dataloader__num_workers=0, **SGD)
    for name, options in dict(plain={}, compiled=dict(compile_backbone=EAGER)).items():
        runner = train(ready(name, **few, **options))
        assert (runner.plain_model.backbone._compiled_call_impl is not None) == (name == 'compiled')
    theirs, ours = (adapter(tmp_path / name, 1) for name in ('plain', 'compiled'))
    start = build_model(ready('start', **few), init_weights=True).state_dict()
    assert max((value - start[key]).abs().max() for key, value in theirs.items()) > 0.01, 'it learns'
    assert_same(theirs, ours, atol=1e-5, rtol=1e-4)
