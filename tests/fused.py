"""A transformer of one's own, whose qkv is one layer, and the weights of a vision model of transformers in it."""

from __future__ import annotations

import torch
from hf_hosts import HOSTS, V5, D
from torch import Tensor, nn

from vpetl_mm.petl.inner import Inner
from vpetl_mm.petl.layouts.layout import transformer

# what a reader would write for it
LAYOUT = transformer(r'blocks\.\d+', norms=r'(.*\.)?norm\d?', inner=(Inner(),), adds_residual=('FusedBlock',))


class FusedAttention(nn.Module):
    """Self-attention of two heads, (B, N, d) to the same shape."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class FusedBlock(nn.Module):
    """A block with its norms in front."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-12), nn.LayerNorm(d, eps=1e-12)
        self.attn, self.mlp = FusedAttention(d), nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Fused(nn.Module):
    """Blocks, a norm, and a head for the mean of the tokens."""

    def __init__(self, d: int = D, hidden: int = 48, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FusedBlock(d, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(d, eps=1e-12), nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(x)).mean(1))


def fused_of(name: str, backbone: nn.Module) -> Fused:
    """A fused model with the weights of a ViT's or a VideoMAE's blocks and last norm."""
    host, model = HOSTS[name], Fused()
    state = backbone.state_dict()
    model.norm.load_state_dict({n: state[f'layernorm.{n}'] for n in ('weight', 'bias')})
    for ours, block in zip(model.blocks, host.blocks, strict=True):
        theirs = backbone.get_submodule(block)
        copies = {'norm1': 'layernorm_before', 'norm2': 'layernorm_after', 'attn.proj': host.below['proj']}
        copies |= {'mlp.fc1': host.below['fc1'], 'mlp.fc2': host.below['fc2']}
        for mine, other in copies.items():
            ours.get_submodule(mine).load_state_dict(theirs.get_submodule(other).state_dict())
        attention = theirs.get_submodule(host.below['attn'])
        layers = [getattr(attention, slot) for slot in host.slots]
        biases = [layer.bias for layer in layers]
        if name == 'videomae_bare' and not V5:
            biases = [attention.q_bias, None, attention.v_bias]
        with torch.no_grad():
            ours.attn.qkv.weight.copy_(torch.cat([layer.weight for layer in layers]))
            ours.attn.qkv.bias.copy_(torch.cat([torch.zeros(D) if b is None else b for b in biases]))
    return model
