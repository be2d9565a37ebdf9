"""Files of deltas that share parameters or frozen tensors, or sit at several places: they hold each once, and all."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from vpetl_mm.engine.adapter import adapter_state
from vpetl_mm.models.build import build_model
from vpetl_mm.petl import adapt
from vpetl_mm.use.bundle.allowed import checked_model
from vpetl_mm.use.plain import load, save

timm = pytest.importorskip('timm')
# delta -> the tensors that its sites share
DELTAS = {
    'ssf': (dict(type='SSF'), []),
    'fact': (dict(type='FacT', rank=3, form='TK'), ['C', 'P', 'U.weight', 'V.weight']),
    'vera': (dict(type='VeRA', rank=4), ['A', 'B']),
    'drawn': (dict(type='VeRA', rank=4, save_projection=False), ['checksum']),
    'mona': (dict(type='Mona', d_bottle=4), []),
    'dtl': (dict(type='DTL', kernel=3), ['conv.weight']),
    'compacter': (dict(type='Compacter', d_bottle=8), ['A']),
}


@pytest.mark.parametrize('name', DELTAS)
def test_a_file_in_plain_pytorch(name: str, tmp_path: Path):
    delta, shared = DELTAS[name]
    sizes = dict(img_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=2, num_classes=3)
    model = timm.models.VisionTransformer(**sizes).eval()
    twin = copy.deepcopy(model)
    plan = adapt(model, {name: delta})
    for parameter in plan.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert [k for k in plan.state_dict() if k.startswith('deltas.')] == [f'deltas.{name}.{n}' for n in shared]
    save(plan, tmp_path / 'file.safetensors')
    load(adapt(twin, {name: delta}), tmp_path / 'file.safetensors')
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize('name', DELTAS)
def test_an_adapter_file_and_what_a_bundle_may_name(name: str):
    delta, shared = DELTAS[name]
    config = tiny.HOSTS['vit'].config({name: delta})
    model = build_model(config)
    kept = adapter_state(model)
    assert [k for k in kept if k.startswith('backbone.deltas.')] == [f'backbone.deltas.{name}.{n}' for n in shared]
    settings = {k: v for k, v in model.plan.settings()[name].items() if v is not None}
    portable = {k: v for k, v in config['model'].items() if k != 'base'} | dict(petl=dict(deltas={name: settings}))
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    assert checked_model(portable)['petl']['deltas'] == {name: tuples}
