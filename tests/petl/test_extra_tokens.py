"""Which deltas add keys and values, in which order, and from what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vpetl_mm.petl import PATT, AdaptMLP, Delta, ExtraTokens, LoRA, Prefix, Prompt, extra_tokens
from vpetl_mm.petl.host import attach

X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


class Noting(Delta):
    """Adds keys of its own number and notes what it was given."""

    reads = None
    joins_attention = True

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number, self.seen = number, []

    def reset_parameters(self) -> None:
        """Nothing to draw."""

    def extra_tokens(self, x: Tensor, project) -> ExtraTokens:
        self.seen.append((x, project))
        return ExtraTokens(torch.full((1, 4), self.number), torch.full((1, 4), -self.number), masked=False)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.qkv(x)[..., :4])


def project(x: Tensor) -> Tensor:
    return x.repeat(1, 1, 3)


def test_those_on_the_attention_come_before_those_on_its_qkv_and_see_tokens_and_projection():
    attention, deltas = Attention(), [Noting(n) for n in (3.0, 1.0, 2.0)]
    for host, name, delta in zip(
        (attention.qkv, attention, attention), ('third', 'first', 'second'), deltas, strict=True
    ):
        attach(host, name, delta)
    extras = extra_tokens(attention, X, project)
    assert [e.k[0, 0].item() for e in extras] == [1.0, 2.0, 3.0]
    assert [e.v[0, 0].item() for e in extras] == [-1.0, -2.0, -3.0]
    assert all(len(d.seen) == 1 and d.seen[0][0] is X and d.seen[0][1] is project for d in deltas)


def test_others_add_none():
    attention = Attention()
    assert extra_tokens(attention, X, project) == []
    attach(attention.qkv, 'patt', PATT(4, d_bottle=2))
    attach(attention.qkv, 'lora', LoRA(4, 4, 'qkv', rank=1))
    attach(attention, 'adapter', AdaptMLP(4, d_bottle=2))
    attach(attention.proj, 'noting', Noting(1.0))  # behind attention, where keys are no use
    assert extra_tokens(attention, X, project) == []


@pytest.mark.parametrize(
    ('delta', 'shape', 'masked'),
    [
        (Prefix(4, num_tokens=2, d_middle=3), (2, 4), False),
        (Prompt(4, nn.LayerNorm(4), num_tokens=2), (2, 4), False),
        (PATT(4, d_bottle=2, mode='concat'), (3, 5, 4), True),
        (PATT(4, d_bottle=2, mode='concat', source='tokens', num_tokens=5), (5, 4), True),
    ],
    ids=['prefix', 'prompt', 'concat', 'concat_tokens'],
)
def test_what_the_methods_add(delta, shape, masked):
    added = delta.extra_tokens(X, nn.Linear(4, 12))
    assert tuple(added.k.shape) == tuple(added.v.shape) == shape
    assert added.masked is masked
    assert not torch.equal(added.k, added.v)
