"""torch's nn.MultiheadAttention through its layers, against itself."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

from vpetl_mm.petl import PATT
from vpetl_mm.petl.inner import Inner
from vpetl_mm.petl.opened import opened_class
from vpetl_mm.petl.self_attention import SelfAttention

D, HEADS, B, N = 12, 3, 2, 5
INNER = Inner(('in_proj_weight',))


def pair(batch_first: bool = True, **options) -> tuple[nn.MultiheadAttention, SelfAttention]:
    own = tiny.randomised(nn.MultiheadAttention(D, HEADS, batch_first=batch_first, **options)).eval()
    served = SelfAttention(D, HEADS, batch_first=batch_first, **options).eval()
    served.load_state_dict(own.state_dict())
    return own, served


def masks() -> dict[str, Tensor | None]:
    hidden = torch.rand(N, N, generator=torch.Generator().manual_seed(0)) > 0.6
    hidden.fill_diagonal_(False)
    each = torch.randn(B * HEADS, N, N, generator=torch.Generator().manual_seed(1))
    return dict(none=None, boolean=hidden, added=each[0], boolean_of_heads=each > 1, added_of_heads=each)


@pytest.mark.parametrize('mask', masks())
@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_is_as_torch_computes_it(mask, batch_first, bias):
    own, served = pair(batch_first, bias=bias)
    x, given = torch.randn(B, N, D, generator=torch.Generator().manual_seed(2)), masks()[mask]
    x = x if batch_first else x.transpose(0, 1)
    y, weights = own(x, x, x, need_weights=False, attn_mask=given)
    z, none = served(x, x, x, need_weights=False, attn_mask=given)
    assert weights is None and none is None
    torch.testing.assert_close(z, y, atol=1e-6, rtol=1e-6)


def test_concatenated_keys_do_not_depend_on_the_order_of_axes():
    outputs, x = [], torch.randn(N, N, D, generator=torch.Generator().manual_seed(3))  # as many images as tokens
    for batch_first in (True, False):
        _, attention = pair(batch_first)
        attention.__class__ = opened_class(SelfAttention, INNER)
        attention.deltas = nn.ModuleDict(dict(patt=tiny.randomised(PATT(D, d_bottle=3, mode='concat'))))
        attention.deltas.silent = False
        attention.deltas.patt.at = 'qkv'
        tokens = x if batch_first else x.transpose(0, 1)
        y, _ = attention(tokens, tokens, tokens, need_weights=False)
        outputs.append(y if batch_first else y.transpose(0, 1))
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ('options', 'call', 'words'),
    [
        ({}, dict(need_weights=True), ('need_weights=False',)),
        ({}, dict(key_padding_mask=torch.zeros(B, N, dtype=torch.bool)), ('key_padding_mask',)),
        ({}, dict(key=torch.zeros(B, N, D)), ('self-attention',)),
        ({}, dict(is_causal=True), ('is_causal', 'attn_mask')),
        ({}, dict(query=torch.zeros(N, D)), ('(B, N, d)',)),
        (dict(add_bias_kv=True), {}, ('bias_k',)),
        (dict(add_zero_attn=True), {}, ('add_zero_attn',)),
    ],
)
def test_what_it_does_not_serve_is_refused(options, call, words):
    _, served = pair(**options)
    query = call.get('query', torch.zeros(B, N, D))
    with tiny.refused(*words):
        served(**{**dict(query=query, key=query, value=query, need_weights=False), **call})
