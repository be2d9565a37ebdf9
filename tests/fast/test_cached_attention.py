"""What a window attention keeps while its table is frozen is never stale, and no weight."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
from torch import Tensor, nn
from windows import CACHED, close, freeze_table, mask_of, pair, tokens

from vpetl_mm.petl import PATT
from vpetl_mm.petl.host import attach, detach

EACH = pytest.mark.parametrize('cls', CACHED)
HALF = pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])


def frozen_pair(cls: type, n_w: int = 2) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Both attentions after a first forward, with what they saw."""
    host, fast = pair(cls)
    freeze_table(host, fast)
    x, mask = tokens(host, 2 * n_w), mask_of(host, n_w)
    close(fast(x, mask), host(x, mask))
    return host, fast, x, mask


@EACH
def test_the_bias_is_kept_while_frozen_and_is_no_weight(cls, monkeypatch):
    _, fast, x, mask = frozen_pair(cls)
    base, made = cls.__mro__[2], []
    make = base.bias_and_mask
    monkeypatch.setattr(base, 'bias_and_mask', lambda *a: made.append(a) or make(*a))
    fast(x, mask)
    assert not made and fast.kept_bytes > 0
    assert list(fast.state_dict()) == list(pair(cls)[1].state_dict())
    assert not [b for n, b in fast.named_buffers() if n != 'relative_position_index']
    fast.relative_position_bias_table.requires_grad_(True)
    fast(x, mask)
    assert made


@EACH
@pytest.mark.parametrize('assign', [False, True])
def test_after_load_state_dict(cls, assign):
    host, fast, x, mask = frozen_pair(cls)
    for seed in (1, 2):
        other = pair(cls, seed)[0].state_dict()
        host.load_state_dict(other)
        fast.load_state_dict({k: v.clone() for k, v in other.items()}, assign=assign)
        freeze_table(host, fast)
        close(fast(x, mask), host(x, mask))


@EACH
def test_after_writing_to_the_table_and_after_training_it(cls):
    host, fast, x, mask = frozen_pair(cls)
    for attention in (host, fast):
        with torch.no_grad():
            attention.relative_position_bias_table.mul_(-3)
    close(fast(x, mask), host(x, mask))
    for attention in (host, fast):
        attention.relative_position_bias_table.requires_grad_(True)
        optimizer = torch.optim.SGD([attention.relative_position_bias_table], lr=1.0)
        attention(x, mask).square().sum().backward()
        optimizer.step()
    freeze_table(host, fast)
    close(fast(x, mask), host(x, mask))


@EACH
def test_after_another_mask_of_the_same_shape(cls):
    host, fast, x, mask = frozen_pair(cls)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for other in (mask_of(host, 2, seed=3), None, mask, mask_of(host, 1)):
                close(fast(x, other), host(x, other))


@EACH
def test_after_double_and_back(cls):
    host, fast, x, mask = frozen_pair(cls)
    torch.testing.assert_close(fast.double()(x.double(), mask.double()), host.double()(x.double(), mask.double()))
    close(fast.float()(x, mask), host.float()(x, mask))


@EACH
@HALF
def test_after_rounding_to_half_and_back(cls, dtype):
    """The table differs after the round trip, and its memory may be where it was."""
    for _ in range(20):
        host, fast, x, mask = frozen_pair(cls)
        for attention in (host, fast):
            attention.to(dtype)
            attention.to(torch.float32)
        close(fast(x, mask), host(x, mask))


@EACH
@HALF
def test_in_half_precision(cls, dtype):
    host, fast, x, mask = frozen_pair(cls)
    exact = host(x, mask)
    errors = [(a.to(dtype)(x.to(dtype), mask.to(dtype)).float() - exact).abs().max() for a in (host, fast)]
    assert errors[1] <= 2 * errors[0] + 1e-3


@EACH
def test_copies_do_not_carry_what_was_kept(cls):
    host, fast, x, mask = frozen_pair(cls)
    fresh = pickle.dumps(pair(cls)[1])
    assert len(pickle.dumps(fast)) <= len(fresh) + 100
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        other = pair(cls, 4)[0]
        twin.load_state_dict(other.state_dict())
        freeze_table(twin)
        close(twin(x, mask), other(x, mask))
        close(fast(x, mask), host(x, mask))


@EACH
def test_training_after_inference_mode(cls):
    host, fast, x, mask = frozen_pair(cls)
    for attention in (host, fast):
        attention.relative_position_bias_table.mul_(0.5)  # what was kept is computed again
        with torch.inference_mode():
            attention(x, mask)
        attention(x, mask).square().mean().backward()
    close(fast.qkv.weight.grad, host.qkv.weight.grad)


# In a model, with deltas on the attention itself

PREFIX = dict(type='Prefix', num_tokens=3, d_middle=2)


@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
@pytest.mark.parametrize('deltas', [dict(), dict(prefix=PREFIX)], ids=['plain', 'prefix'])
def test_copies_of_a_models_attention_do_not_carry_what_was_kept(name, deltas):
    host = tiny.HOSTS[name]
    attention = host.part(host.blocks(host.build(deltas))[1], 'attn')
    before = len(pickle.dumps(attention))
    with torch.no_grad():
        attention(torch.randn(2, host.tokens, 16))
    assert attention._kept is not None
    assert len(pickle.dumps(attention)) <= before + 100
    assert copy.deepcopy(attention)._kept is None


@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
def test_what_is_kept_follows_the_mask_and_the_number_of_added_keys(name):
    """One attention, other masks, other deltas: each time as if it were the first call."""
    host = tiny.HOSTS[name]
    attention = host.part(host.blocks(host.build(dict(prefix=PREFIX)))[1], 'attn')
    x, n = torch.randn(4, host.tokens, 16, generator=torch.Generator().manual_seed(0)), host.tokens
    concat = tiny.randomised(PATT(16, d_bottle=2, mode='concat'))
    masks = [tiny.shift_mask(2, n, seed) for seed in (0, 1)]
    steps = [(None, False), (masks[0], False), (masks[0], True), (masks[1], True), (None, True), (None, False)]
    with torch.no_grad():
        for mask, more in steps:
            if 'deltas' in attention.qkv._modules:
                detach(attention.qkv)
            if more:
                attach(attention.qkv, 'patt', concat)
            ours = attention(x, mask=mask)
            attention._kept = None
            assert torch.equal(ours, attention(x, mask=mask))
