"""The methods as their authors ran them: outputs, every gradient, merged weights, and numbers of parameters."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from published import SHARED, Case, errors
from published_cases import CASES, OTHERS, found


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


# at the papers' defaults, on ViT-B/16 without its head
COUNTS = {
    'SSF': (dict(type='SSF'), 205_824),
    'RepAdapter': (dict(type='RepAdapter'), 239_808),
    'DoRA': (dict(type='DoRA'), 608_256),
    'FacT-TT': (dict(type='FacT'), 61_440),
    'FacT-TT, rank 4': (dict(type='FacT', rank=4), 8_448),
    'FacT-TK': (dict(type='FacT', form='TK', rank=32), 86_528),
    'FacT-TK, rank 8': (dict(type='FacT', form='TK', rank=8), 13_952),
    'VeRA': (dict(type='VeRA'), 24_576),
    'ST-Adapter, 12x384': (dict(type='STAdapter', at='between', num_frames=8), 7_110_144),
}
