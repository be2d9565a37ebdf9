"""Spaces as a person writes them, and what Optuna makes of them."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from vpetl_mm import UserError
from vpetl_mm.search.space import parse_space


@pytest.mark.parametrize(
    ('text', 'wanted'),
    [
        ('log(1e-4,1e-1)', FloatDistribution(1e-4, 1e-1, log=True)),
        (' uniform(-0.5, 1) ', FloatDistribution(-0.5, 1)),
        ('int(1,8)', IntDistribution(1, 8)),
        ('[32,64,128]', CategoricalDistribution((32, 64, 128))),
        ("[kv, 'q k', True, None, 0.1]", CategoricalDistribution(('kv', 'q k', True, None, 0.1))),
        ([1, 1.0, 2], CategoricalDistribution((1, 1.0, 2))),
    ],
)
def test_a_space_is_the_distribution_it_says(text, wanted):
    space = parse_space('a', text)
    assert space.distribution() == wanted
    assert parse_space('a', str(space).replace('q k', "'q k'")) == space


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('1e-3', 'cannot be read'),
        ('log(1e-4,)', 'cannot be read'),
        ('log(1e-4,1,3)', 'cannot be read'),
        ('log(low=1,high=2)', 'cannot be read'),
        ('normal(0,1)', 'log(1e-4,1e-1), uniform'),
        ('log(', 'cannot be read'),
        ('[' * 900, 'cannot be read'),
        ('[' + '1,' * 2000 + ']', 'cannot be read'),
        ('__import__("os").system("touch ran")', 'cannot be read'),
        ('[__import__("os").system("touch ran"), 1]', 'cannot be read'),
        ('log(0,1)', 'above 0'),
        ('uniform(1,1)', 'empty'),
        ('int(8,1)', 'empty'),
        ('int(1,2.5)', 'whole'),
        ('log(a,1)', 'two numbers'),
        ('uniform(0,1e999)', 'two numbers'),
        ('[3]', 'nothing to choose'),
        ('[3,3]', 'nothing to choose'),
        ([[1], [2]], 'numbers and words'),
    ],
)
def test_what_is_no_space_is_refused_and_never_executed(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        parse_space('some.key', text)
    assert said in str(error.value) and 'some.key' in str(error.value) and '\n' not in str(error.value)
    assert len(str(error.value)) < 300 and not any(tmp_path.iterdir())


def test_a_space_knows_its_values():
    assert 0.01 in parse_space('a', 'log(1e-4,1e-1)') and 1 not in parse_space('a', 'log(1e-4,1e-1)')
    assert 3 in parse_space('a', 'int(1,8)') and 3.0 not in parse_space('a', 'int(1,8)')
    assert True not in parse_space('a', '[1,2]') and None in parse_space('a', '[None,2]')
