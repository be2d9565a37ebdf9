"""The one door: what is exchanged and what is not, that the numbers stay, and that all works without it."""

from __future__ import annotations

import copy
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import chosen
import pytest
import tiny
import torch
from cases import every
from mmaction.models.backbones.swin import SwinTransformerBlock3D
from mmengine.registry import MODELS
from steps import Step, last, near, same, step
from tiny import HOSTS, Host
from torch import Tensor, nn

import vpetl_mm
from vpetl_mm import build_model
from vpetl_mm.fast import speed_up
from vpetl_mm.fast.swin_stage import WindowedBlock
from vpetl_mm.models.window_attention import FastWindowAttention3D
from vpetl_mm.petl.exchange import plain_class

SAMPLES = {'swin3d': tiny.clip(2, (4, 32, 32))}  # which its windows divide, a shift in space included
MANY = dict(
    patt=dict(type='PATT', d_bottle=4),
    lora=dict(type='LoRA', at='fc1', rank=2),
    adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5, source='residual'),
    prefix=dict(type='Prefix', num_tokens=2, d_middle=2),
)
EVERY = pytest.mark.parametrize('name', HOSTS)
FAST = pytest.mark.parametrize('fast', [True, False], ids=['fast', 'plain'])


def sample(host: Host) -> Tensor:
    name = next(n for n, h in HOSTS.items() if h is host)
    return SAMPLES.get(name, host.sample())


def joined(made: Step) -> Step:
    """A step with all gradients as one vector, in which those near zero, mostly rounding's, weigh little."""
    grads = [t.flatten().float() for n, t in made.items() if t is not None and n not in ('y', 'after')]
    return dict(y=made['y'], grads=torch.cat(grads))


def check(fast: nn.Module, plain: nn.Module, x: Tensor) -> None:
    """In double precision, in bfloat16, and in training with every weight trained and paths dropped."""
    same(step(fast.eval().double(), x.double()), step(plain.eval().double(), x.double()), 1e-11, 1e-10)
    exact = step(plain.float(), x)
    near(*map(joined, (step(fast.float(), x, amp=True), step(plain, x, amp=True), exact)), 2**-6)
    for model in (fast, plain):
        model.train().requires_grad_(True)
    for seed in (0, 1):
        same(step(fast, x, seed=seed), step(plain, x, seed=seed))


@every()
def test_fast_and_plain_are_the_same(host, case):
    fast, plain = (host.build(case.deltas, petl=dict(fast=f), drop_path_rate=0.5) for f in (True, False))
    assert list(fast.state_dict()) == list(plain.state_dict())
    check(fast, plain, sample(host))


@pytest.mark.parametrize(('structured', 'seed'), [*(('LoRA', s) for s in chosen.SEEDS), ('AdaptMLP', 0)])
@EVERY
def test_with_what_spt_tunes(name, structured, seed, tmp_path):
    host = HOSTS[name]
    spt = chosen.options(chosen.written(host, tmp_path, structured, seed), structured)
    # which reads the outputs of layers whose single weights are tuned
    behind = {p: dict(type='LinearAdapter', at=p, d_bottle=3, scale=0.7) for p in ('qkv', 'proj', 'fc1', 'fc2')}
    for deltas in ({}, behind):
        models = (host.build(deltas, petl=dict(spt, fast=f), drop_path_rate=0.5) for f in (True, False))
        check(*models, sample(host))


# What is exchanged


def of_fast(model: nn.Module) -> set[str]:
    """The names of the classes and functions of vpetl_mm.fast in a model."""
    used = [plain_class(m) for m in model.modules()]
    used += [v for m in model.modules() for v in vars(m).values() if callable(v)]
    used += [type(model.backbone).recipe[0]] if hasattr(type(model.backbone), 'recipe') else []
    return {getattr(u, '__name__', '') for u in used if getattr(u, '__module__', '').startswith('vpetl_mm.fast')}


COMMON = {'add_in_place', 'dot_product', 'recomputing_class'}
EXCHANGED = {
    'swin3d': {'WindowedStage', 'WindowedBlock', 'CachedWindowAttention3D'},
    'swin2d': {'CachedWindowMSA'},
}


@EVERY
def test_what_is_exchanged(name):
    host = HOSTS[name]
    assert of_fast(host.build(MANY)) == COMMON | EXCHANGED.get(name, set())
    assert of_fast(host.build(MANY, petl=dict(fast=False))) == set()
    assert of_fast(host.build(MANY, petl=dict(fast=False, gelu='8bit'))) == {'GELU8Bit'}
    served = {n: spec for n, spec in MANY.items() if n not in ('prefix', 'patt')}
    own = of_fast(host.build(served, petl=dict(attention=None)))
    attentions = {'CachedWindowAttention3D', 'CachedWindowMSA', 'dot_product'}
    assert own == (COMMON | EXCHANGED.get(name, set())) - attentions, 'the attention alone is another'


@pytest.mark.parametrize('wrong', ['yes', 1, None])
def test_another_value_is_refused(wrong):
    with tiny.refused('petl.fast', 'True', 'False', repr(wrong)):
        build_model(HOSTS['vit'].config(petl=dict(fast=wrong)))


class OwnAttention(FastWindowAttention3D):
    """Attends half as strongly."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return 0.5 * super().attend(q, k, v, bias)


class OwnBlock(SwinTransformerBlock3D):
    """Takes a volume alone, as its parent."""

    def forward(self, x: Tensor, mask_matrix: Tensor | None) -> Tensor:
        assert x.dim() == 5
        return 2 * super().forward(x, mask_matrix)


def test_your_own_attention_is_left_alone():
    MODELS.register_module(module=OwnAttention)
    try:
        models = [
            HOSTS['swin3d'].build(
                MANY, petl=dict(attention=dict(type='OwnAttention'), fast=fast), drop_path_rate=0.999999
            )
            for fast in (True, False)
        ]
    finally:
        MODELS.module_dict.pop('OwnAttention')
    assert {plain_class(b.attn) for b in models[0].backbone.layers[0].blocks} == {OwnAttention}
    check(*models, SAMPLES['swin3d'])


def test_your_own_block_is_left_alone():
    models = [HOSTS['swin3d'].build(MANY, petl=dict(fast=False), drop_path_rate=0.5) for _ in range(2)]
    for model in models:
        block = model.backbone.layers[0].blocks[1]
        block.__class__ = type(block).recipe[0](OwnBlock, *type(block).recipe[2:])
    speed_up(models[0])
    kinds = [plain_class(b) for b in models[0].backbone.layers[0].blocks]
    assert kinds == [WindowedBlock, OwnBlock]
    check(*models, SAMPLES['swin3d'])


def test_the_hosts_attention_where_every_clip_is_dropped():
    patt = dict(patt=MANY['patt'])
    models = [
        HOSTS['swin3d'].build(patt, petl=dict(attention=None, fast=fast), drop_path_rate=0.999999)
        for fast in (True, False)
    ]
    check(*models, SAMPLES['swin3d'])


# Copies and captures


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIED = {'deepcopy': copy.deepcopy, 'pickle': lambda m: pickle.loads(pickle.dumps(m)), 'torch.save': saved}


@pytest.mark.parametrize('copied', COPIED.values(), ids=COPIED)
@FAST
@EVERY
def test_a_copy_is_as_fast_and_its_own(name, fast, copied):
    host = HOSTS[name]
    model = host.build(MANY, petl=dict(fast=fast)).train()
    expected = step(model, sample(host))  # also what is kept by a first call
    twin = copied(model)
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    assert of_fast(twin) == of_fast(model)
    same(step(twin, sample(host)), expected, 0, 0)
    tiny.randomised(twin, seed=3)
    same(step(model, sample(host)), expected, 0, 0)


@pytest.mark.parametrize(('how', 'fast'), [('compile', False), ('export', True), ('export', False)])
@pytest.mark.parametrize('name', ['swin3d', 'videomae', 'vit', 'swin2d'])
def test_a_graph_of_the_whole_backbone(name, how, fast):
    """Compiling what is fast is part of the matrix of all deltas."""
    host = HOSTS[name]
    model, x = host.build(MANY, petl=dict(fast=fast), depth=1), sample(host)
    expected = tiny.features(model, x)
    torch._dynamo.reset()
    with torch.no_grad():
        if how == 'compile':
            graph = torch.compile(model.backbone, backend='eager', fullgraph=True)
        else:
            graph = torch.export.export(model.backbone, (x,)).module()
        torch.testing.assert_close(last(graph(x)), expected, atol=1e-6, rtol=1e-6)


# Without the folder

SCRIPT = """
import sys
sys.meta_path = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]  # a developer's checkout
import tiny, torch
from vpetl_mm import UserError, build_model

for name in ('swin3d', 'vit'):
    host = tiny.HOSTS[name]
    model = host.build({deltas!r}).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(tiny.classify(model, host.sample(4)).square().sum())
        losses[-1].backward()
        optimizer.step()
    print(bool(losses[1] < losses[0]), all(p.grad is not None for p in trained))
    try:
        build_model(host.config(petl=dict(gelu='8bit')))
    except UserError as error:
        print(error)
print([m for m in sys.modules if m.startswith('vpetl_mm.fast')])
"""


def test_without_the_folder_everything_trains(tmp_path):
    package = Path(vpetl_mm.__file__).parent
    shutil.copytree(package, tmp_path / 'vpetl_mm', ignore=shutil.ignore_patterns('fast', '__pycache__'))
    path = os.pathsep.join([str(tmp_path), str(package.parent), str(Path(__file__).parents[1])])
    environment = dict(os.environ, PYTHONPATH=path)
    command = [sys.executable, '-c', SCRIPT.format(deltas=MANY)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    refusal = "petl.gelu='8bit' needs vpetl_mm.fast, which is not installed."
    assert done.stdout.splitlines()[-5:] == ['True True', refusal] * 2 + ['[]']
