"""Attentions of other libraries: what does not call what is watched is refused, and what is called acts once."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
from timm.layers import AttentionRope
from timm.models.eva import EvaAttention
from timm_hosts import HOSTS, VIT, plain
from torch import Tensor, nn

from vpetl_mm.petl import adapt

ON_QKV = dict(patt=dict(type='PATT', d_bottle=3))
JOINED = dict(prefix=dict(type='Prefix', num_tokens=2, d_middle=3))


class Own(EvaAttention):
    """An attention of one's own, which multiplies by hand where it is told to."""

    by_hand: str = ''

    def forward(self, x: Tensor, rope: Any = None, attn_mask: Any = None, is_causal: bool = False) -> Tensor:
        qkv = x @ self.qkv.weight.T if self.by_hand == 'projection' else F.linear(x, self.qkv.weight)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        if self.by_hand == 'softmax':
            y = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.by_hand == 'causal')
        if self.by_hand == 'twice':
            y = y - F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class Crossed(AttentionRope):
    """Keys of other tokens than its queries."""

    def forward(self, x: Tensor, rope: Any = None, attn_mask: Any = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x.flip(1)), self.v_proj(x.flip(1))
        return self.proj(F.scaled_dot_product_attention(q, k, v))


def model_of(by_hand: str) -> nn.Module:
    model = plain('eva02')
    for block in model.blocks:
        block.attn.__class__ = type('Own', (Own,), dict(by_hand=by_hand))
    return model


@pytest.mark.parametrize(
    ('by_hand', 'deltas', 'words'),
    [
        ('projection', ON_QKV, ('Own', 'qkv.weight', 'left out')),
        ('softmax', JOINED, ('Own', 'scaled_dot_product_attention')),
        ('twice', JOINED, ('Own', 'twice')),
        ('causal', JOINED, ('Own', 'causal')),
    ],
)
def test_what_passes_a_function_by_is_refused(by_hand, deltas, words):
    """At its first forward pass, and only where deltas need the function."""
    model = model_of(by_hand)
    adapt(model, deltas, train=[])
    with tiny.refused(*words):
        HOSTS['eva02'].out(model)
    others = model_of(by_hand)
    adapt(others, dict(adapter=dict(type='AdaptMLP', d_bottle=3)), train=[])
    assert torch.equal(HOSTS['eva02'].out(others), HOSTS['eva02'].out(model_of(by_hand)))


@pytest.mark.parametrize('deltas', [ON_QKV, JOINED], ids=['qkv', 'joined'])
def test_an_attention_of_ones_own_is_served(deltas):
    model = model_of('')
    adapt(model, deltas, train=[])
    assert not torch.equal(HOSTS['eva02'].out(model), HOSTS['eva02'].out(model_of('')))


def test_keys_of_other_tokens_are_refused():
    model = timm.create_model('vit_small_patch16_rope_224', **VIT, qkv_fused=False)
    for block in model.blocks:
        block.attn.__class__ = Crossed
    adapt(model, ON_QKV, train=[])
    with tiny.refused('Crossed', 'self-attention'):
        model(torch.randn(1, 3, 32, 32))


def test_each_layer_acts_once():
    """A gate reads the same tokens through a layer of its own, and prompts pass the projection alone."""
    model, called = plain('naflex_gated'), []
    adapt(model, dict(prompt=dict(type='Prompt', num_tokens=2), **ON_QKV), train=[])
    block = model.blocks[0]
    patt, gate = block.attn.deltas.patt, block.attn.gate
    patt.register_forward_hook(lambda m, args, y: called.append(tuple(args[0].shape[-2:])))
    gate.register_forward_hook(lambda m, args, y: called.append('gate'))
    HOSTS['naflex_gated'].out(model, 1)
    tokens = model.blocks[0].attn.num_prefix_tokens + 16
    assert sorted(map(str, called)) == sorted(map(str, [(2, 24), (tokens, 24), 'gate']))


def test_autocast_keeps_its_precision():
    """Further keys take the precision of the attention's own."""
    for name in ('vit_qk_norm', 'eva02', 'eva02_apart', 'swin'):
        model = plain(name)
        adapt(model, {**ON_QKV, **JOINED, 'prompt': dict(type='Prompt', num_tokens=2)}, train=[])
        expected = HOSTS[name].out(model)
        with torch.autocast('cpu', torch.bfloat16):
            y = HOSTS[name].out(model)
        torch.testing.assert_close(y.float(), expected, atol=0.1, rtol=0.1)
