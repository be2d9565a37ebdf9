"""The code in the guides is what there is, and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
import torch
from mmengine.registry import MODELS

from vpetl_mm import build_model

REPO = Path(__file__).parents[1]


def blocks(name: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (REPO / 'docs' / name).read_text(), re.DOTALL)


@pytest.fixture
def scale_shift():
    """The guide's class, registered for as long as the test lasts."""
    scope: dict = {}
    exec(blocks('adding_a_method.md')[0], scope)
    MODELS.register_module(module=scope['ScaleShift'])
    yield scope['ScaleShift']
    del MODELS._module_dict['ScaleShift']


def test_the_method_of_the_guide_works_on_a_real_host(scale_shift):
    deltas = dict(ssf=dict(type='ScaleShift', at='qkv'))
    model = build_model(tiny.config(deltas, seed=1), init_weights=True).eval()
    plain = build_model(tiny.config(seed=1), init_weights=True).eval()
    assert model.plan.count()['by']['ssf'] == 2 * (2 * 3 * 16)
    with torch.no_grad():
        assert torch.equal(model.backbone(tiny.clip()), plain.backbone(tiny.clip()))
        for name, parameter in model.named_parameters():
            if '.deltas.ssf.' in name:
                parameter.fill_(0.5)
        assert not torch.equal(model.backbone(tiny.clip()), plain.backbone(tiny.clip()))


def test_the_host_of_the_guide_is_the_one_in_the_tree():
    entry, leaf, _ = blocks('adding_a_host.md')
    for block in (entry, leaf):
        path, _, code = block.partition('\n')
        assert code.strip() in (REPO / path.removeprefix('# ')).read_text(), path


def test_the_model_of_the_guide_builds():
    scope: dict = {}
    exec(blocks('adding_a_host.md')[2], scope)
    config = {k: scope[k] for k in ('default_scope', 'model')}
    counts = build_model(config, meta=True).plan.count()
    assert counts['by'] == {'head': 102_500, 'patt': 24 * (32 + 0) + 3 * 32 * 12_032 + 2 * 12_032}
