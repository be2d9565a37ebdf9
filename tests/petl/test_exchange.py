"""The class of a module is exchanged, whatever has been set on the module itself."""

from __future__ import annotations

import copy

import torch
from tiny import randomised, refused
from torch import nn

from vpetl_mm.petl import PATT
from vpetl_mm.petl.host import attach, detach


def qkv() -> nn.Linear:
    return randomised(nn.Linear(4, 12))


def patt() -> PATT:
    return randomised(PATT(4, d_bottle=2), seed=1)


def test_a_forward_that_is_the_classs_own_is_no_other():
    """As transformers 4 leaves it behind on what it has recorded, before deltas come and before they go."""
    x, layer, expected = torch.ones(2, 4), qkv(), qkv()
    attach(expected, 'patt', patt())
    layer.forward = layer.forward
    layer = copy.deepcopy(layer)
    attach(layer, 'patt', patt())
    assert torch.equal(layer(x), expected(x)) and not torch.equal(layer(x), qkv()(x))
    layer.forward = layer.forward
    detach(layer)
    assert torch.equal(layer(x), qkv()(x)) and type(layer) is nn.Linear


def test_another_forward_is_refused():
    layer = qkv()
    layer.forward = lambda x: x
    with refused('Linear', 'passed by', 'before'):
        attach(layer, 'patt', patt())
