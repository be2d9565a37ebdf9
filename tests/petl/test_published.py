"""The methods as their authors ran them: outputs, every gradient, merged weights, and numbers of parameters."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import timm
import torch
from published import SHARED, Case, errors
from published_cases import CASES, OTHERS, found

from vpetl_mm.petl import adapt


@pytest.mark.parametrize(('name', 'case'), [pytest.param(n, c, id=f'{n}, {c.host}') for n, c in found()])
def test_is_the_published_module(name: str, case: Case):
    e = errors(name, case)
    assert e.output < 1e-5 and e.gradient < 1e-4 and e.input < 1e-4
    assert not case.merges or e.merged_output < 1e-5
    assert e.merged_weight is None or e.merged_weight < 1e-5


@pytest.mark.skipif(not SHARED.is_dir(), reason='needs ../shared/methods')
def test_every_published_method_is_compared():
    patterns = [case.files for case in CASES] + [*OTHERS]
    assert [path.stem for path in SHARED.glob('*.npz') if not any(fnmatch(path.stem, p) for p in patterns)] == []


# at the papers' defaults, on ViT-B/16 without its head; AIM's, ST-Adapter's and DTL's are with their other tests
COUNTS = {
    'SSF': (dict(type='SSF'), 205_824),
    'RepAdapter': (dict(type='RepAdapter'), 239_808),
    'DoRA': (dict(type='DoRA'), 608_256),
    'FacT-TT': (dict(type='FacT'), 61_440),
    'FacT-TT, rank 4': (dict(type='FacT', rank=4), 8_448),
    'FacT-TK': (dict(type='FacT', form='TK', rank=32), 86_528),
    'FacT-TK, rank 8': (dict(type='FacT', form='TK', rank=8), 13_952),
    'VeRA': (dict(type='VeRA'), 24_576),
    'KAdaptation': (dict(type='KAdaptation'), 50_176),
    'Adapter+': (dict(type='AdapterPlus'), 165_984),
    'Convpass': (dict(type='Convpass'), 327_552),
    'Convpass, attention alone': (dict(type='Convpass', at='between'), 163_776),
    'Mona': (dict(type='Mona'), 24 * 111_872),
    'Compacter': (dict(type='Compacter'), 57_024 + 64),
    'Compacter++': (dict(type='Compacter', at='mlp'), 28_512 + 64),
    'MHPA': (dict(type='MHPA'), 571_392),
}


@pytest.mark.parametrize('name', COUNTS)
def test_has_as_many_parameters_as_published(name: str):
    delta, count = COUNTS[name]
    with torch.device('meta'):
        plan = adapt(timm.models.VisionTransformer(num_classes=0), dict(delta=delta), train=[])
    assert plan.count()['by'] == {'delta': count}
