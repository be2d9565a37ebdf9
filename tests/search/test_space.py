"""Spaces as a person writes them, and what Optuna makes of them."""

from __future__ import annotations

import random

import pytest

from vpetl_mm import UserError
from vpetl_mm.search.space import parse_space


@pytest.mark.parametrize(
    ('text', 'kind', 'values'),
    [
        ('log(1e-4,1e-1)', 'log', (1e-4, 1e-1)),
        (' uniform(-0.5, 1) ', 'uniform', (-0.5, 1.0)),
        ('int(1,8)', 'int', (1, 8)),
        ('[32,64,128]', 'list', (32, 64, 128)),
        ("[kv, 'q k', True, None, 0.1]", 'list', ('kv', 'q k', True, None, 0.1)),
        ([1, 1.5, 2], 'list', (1, 1.5, 2)),
    ],
)
def test_a_space_has_the_values_it_says(text, kind, values):
    space = parse_space('a', text)
    assert (space.kind, space.values) == (kind, values) and [*map(type, space.values)] == [*map(type, values)]


def test_a_space_is_read_again_as_it_was():
    words = [
        'kv',
        '1',
        'leaky-relu',
        'a b',
        'a,b',
        'True',
        'None',
        'in',
        '',
        "it's",
        '"',
        '\\',
        '\n',
        'é',
        'ﬁ',
        '字',
        ']',
    ]
    numbers = [True, False, None, 2, 4.0, -3, 1e-9, 0.1, 2**53]
    pick = random.Random(0)
    for _ in range(300):
        space = parse_space('a', pick.sample([*words, *numbers], pick.randrange(2, 9)))
        again = parse_space('a', str(space))
        assert again == space and [*map(type, again.values)] == [*map(type, space.values)]


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
        (f'int(1,{10**400})', 'two whole numbers'),
        ([10**5000, 1], 'beyond 2**53'),
        (['a' * 600, 'b' * 600], 'longer than'),
        ('[3]', 'nothing to choose'),
        ('[3,3]', 'nothing to choose'),
        ([1, 1.0], 'are equal'),
        ('[True,1,2]', 'are equal'),
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
