"""The plain products against torch's fused kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vpetl_mm.fast.dot_product import PLAIN_UP_TO, dot_product


@pytest.mark.parametrize('masked', [False, True], ids=['plain', 'masked'])
@pytest.mark.parametrize('scale', [None, 0.3])
def test_the_two_ways_to_attend_agree(scale, masked):
    generator = torch.Generator().manual_seed(0)
    q, k, v, mask = (torch.randn(2, 3, *s, generator=generator) for s in ((5, 8), (7, 8), (7, 8), (5, 7)))
    mask = mask if masked else None
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    torch.testing.assert_close(dot_product(q, k, v, mask, 0.0, scale), exact, atol=0, rtol=0)
    half = [None if t is None else t.bfloat16() for t in (q, k, v, mask)]
    short = dot_product(*half, 0.0, scale)
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), exact, atol=0.02, rtol=0.02)
    assert not torch.allclose(dot_product(*half, 0.5, scale), short)


@pytest.mark.parametrize(('n', 'fused'), [(PLAIN_UP_TO, 0), (PLAIN_UP_TO + 1, 1)])
def test_many_tokens_take_the_fused_kernel(n, fused, monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda *a, **k: calls.append(1) or kernel(*a, **k))
    q, k = torch.ones(1, 1, 2, 4).bfloat16(), torch.ones(1, 1, n, 4).bfloat16()
    torch.testing.assert_close(dot_product(q, k, k), q)
    assert len(calls) == fused
