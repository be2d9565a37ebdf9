"""Budgets as people write them."""

from __future__ import annotations

import pytest

from vpetl_mm import UserError
from vpetl_mm.spt.budget import parse_budget


@pytest.mark.parametrize(
    ('text', 'number'),
    [
        ('0.4M', 400_000),
        ('0.29M', 290_000),
        ('1.0M', 1_000_000),
        ('1m', 1_000_000),
        ('.5M', 500_000),
        ('400k', 400_000),
        ('0.05K', 50),
        ('400000', 400_000),
        ('400,000', 400_000),
        (' 10240 ', 10_240),
        (10_240, 10_240),
        ('1', 1),
    ],
)
def test_numbers(text, number):
    assert parse_budget(text) == number


@pytest.mark.parametrize(
    'text',
    ['', 'M', '0.4 MB', '0.4G', '-1', '1e5', 'nan', 'inf', '0x10', '0.4.1M', True, None, '0,4M', '9' * 400 + 'M'],
    ids=lambda text: repr(text)[:12],
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(UserError) as error:
        parse_budget(text)
    assert '0.4M' in str(error.value)


@pytest.mark.parametrize('text', ['0', '0M', '0.0001k', '0.4', 0])
def test_less_than_one_parameter_is_refused(text):
    with pytest.raises(UserError, match='less than one parameter'):
        parse_budget(text)
