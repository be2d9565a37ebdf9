"""What deltas compute in the models of transformers, against the same computed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import fused
import pytest
import torch
import torch.nn.functional as F
from hf_hosts import HOSTS, V5, D, output
from hf_methods import ADAPTER, LINEAR_ADAPTER, LORA, METHODS, PATT, PREFIX, PROMPT, adapted, copy_of, everywhere
from tiny import refused
from torch import Tensor, nn

from vpetl_mm.petl import LAYOUTS, Sparse

# what changes the projection, or a layer of its own, in every block
ON_LAYERS = {method: METHODS[method] for method in ('bapat', 'patt_qv', 'patt_qkv', 'lora', 'linear', 'sparse')}
ON_LAYERS['lora_slots'] = {f'on_{slot}': dict(LORA, slots=slot) for slot in 'qkv'}
ON_LAYERS['linear_parallel'] = everywhere(LINEAR_ADAPTER, mode='parallel')


@pytest.mark.parametrize('method', ON_LAYERS)
@pytest.mark.parametrize('name', ['vit_bare', 'videomae_bare'])
def test_apart_is_as_fused(name, method, monkeypatch):
    """The same weights with q, k and v in one layer: outputs and the deltas' gradients."""
    monkeypatch.setitem(LAYOUTS, 'fused.Fused', fused.LAYOUT)
    apart, inputs = copy_of(name), HOSTS[name].inputs(2)
    one = fused_of(name, apart).eval()
    tokens = apart.embeddings(inputs['pixel_values'], *([] if name == 'vit_bare' else [None])).detach()
    plans = [adapted(model, name, method, ON_LAYERS[method], train=[]) for model in (apart, one)]
    deltas = [sorted(plan.deltas(), key=lambda delta: delta.at) for plan in plans]  # by place, then by block
    for ours, theirs in zip(*deltas, strict=True):
        if isinstance(ours, Sparse):  # of the fused bias the same entries
            theirs.bias_index, theirs.bias_value = ours.bias_index, nn.Parameter(ours.bias_value.detach().clone())
        theirs.load_state_dict(ours.state_dict())
    left, right = output(apart, inputs), one.norm(one.blocks(tokens))
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)
    for y in (left, right):
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    for ours, theirs in zip(*deltas, strict=True):
        for at, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs.get_parameter(at).grad, rtol=1e-5, atol=1e-6)


def fused_of(name: str, backbone: nn.Module) -> fused.Fused:
    """A fused model with the weights of a ViT's or a VideoMAE's blocks and last norm."""
    host, model = HOSTS[name], fused.Fused()
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


# Further keys and values


class Seen:
    """What a module was given and returned, in one forward pass."""

    def __init__(self, module: nn.Module) -> None:
        module.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], y: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.x, self.y = args[0] if args else kwargs['hidden_states'], y[0] if isinstance(y, tuple) else y


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def heads(x: Tensor) -> Tensor:
    """(B, N, d) to (B, 2, N, d / 2)."""
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def turned(name: str, model: nn.Module, attention: nn.Module, seen: Seen, x: Tensor) -> Tensor:
    """Queries or keys of the tokens with their rotary positions, by the library's own functions."""
    if name == 'dinov3':
        from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

        return apply_rotary_pos_emb(x, x, *seen.kwargs['position_embeddings'])[0]
    if name == 'vjepa2':
        return attention.apply_rotary_embeddings(x, attention.get_position_ids(seen.x))
    return x


def masks(name: str, attention: nn.Module, seen: Seen) -> tuple[Tensor | float, Tensor | float]:
    """What is added to the scores of the tokens' keys, and to those of concatenated keys."""
    if name == 'siglip2':
        hidden = torch.zeros(2, 1, 1, 16)
        hidden[1, ..., 12:] = -torch.inf
        return hidden, hidden
    if name == 'swin':
        table, index = (
            attention.relative_position_bias.relative_position_bias_table,
            attention.relative_position_bias.relative_position_index,
        )
        bias = table[index.flatten()].view(16, 16, 2).permute(2, 0, 1)
        shift = seen.args[1] if len(seen.args) > 1 else seen.kwargs['attention_mask']
        shift = 0.0 if shift is None else shift.repeat(2, 1, 1)[:, None]  # of two images
        return bias + shift, shift
    return 0.0, 0.0


JOINING = dict(concat=dict(PATT, mode='concat', scale=0.5), prefix=PREFIX, prompt=PROMPT)
KEYS = ['vit', 'dinov2', 'dinov3', 'siglip2', 'videomae', 'vivit', 'vjepa2', *(['swin'] if V5 else [])]
# names of the two norms where they are not layernorm_before and layernorm_after
NORMS = dict.fromkeys(('dinov2', 'dinov3', 'vjepa2'), 'norm{}') | dict.fromkeys(('siglip', 'siglip2'), 'layer_norm{}')


def norm_of(name: str, block: nn.Module, which: int) -> nn.Module:
    """The norm in front of the attention, 1, or of the MLP, 2."""
    default = ('layernorm_before', 'layernorm_after')[which - 1]
    return block.get_submodule(NORMS.get(name, default).format(which))


@pytest.mark.parametrize('block', [0, 1])
@pytest.mark.parametrize('name', KEYS)
@torch.no_grad()
def test_further_keys_have_no_position_and_their_tokens_mask(name, block):
    """Prefix, prompts and concatenated keys at once, in a block with windows and in one with shifted windows."""
    model, host = copy_of(name), HOSTS[name]
    attention = model.get_submodule(host.at('attn')[block])
    norm = norm_of(name, model.get_submodule(host.at('block')[block]), 1)
    attended = Seen(attention)
    projected = Seen(model.get_submodule(host.at('proj')[block]))
    adapted(model, name, 'all', JOINING)
    output(model, host.inputs(2))
    x, deltas = attended.x, attention.deltas

    q, k, v = (linear(getattr(attention, slot), x) for slot in host.slots)
    if name == 'videomae' and not V5:
        q, v = q + attention.q_bias, v + attention.v_bias
    prefix = deltas.prefix
    of_prefix = linear(prefix.up, torch.tanh(linear(prefix.down, prefix.tokens))).chunk(2, dim=-1)
    patt = deltas.concat
    of_patt = (0.5 * linear(patt.up, torch.tanh(linear(patt.down, x)))).chunk(2, dim=-1)
    prompts = F.layer_norm(deltas.prompt.tokens, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    of_prompt = [linear(getattr(attention, slot), prompts) for slot in host.slots[1:]]
    if name == 'videomae' and not V5:
        of_prompt[1] = of_prompt[1] + attention.v_bias

    q, k = (turned(name, model, attention, attended, heads(t)) for t in (q, k))
    own, joined = masks(name, attention, attended)
    scale = q.shape[-1] ** -0.5
    keys = [(heads(p), heads(w), 0.0) for p, w in (expanded(t, len(x)) for t in (of_prefix, of_prompt))]
    keys = [(k, heads(v), own), (heads(of_patt[0]), heads(of_patt[1]), joined), *keys]
    scores = torch.cat([q @ key.transpose(-1, -2) * scale + mask for key, _, mask in keys], dim=-1)
    y = scores.softmax(-1) @ torch.cat([value for _, value, _ in keys], dim=-2)
    torch.testing.assert_close(projected.x, y.transpose(1, 2).flatten(2), rtol=1e-5, atol=1e-5)


def expanded(pair: Iterable[Tensor], batch: int) -> list[Tensor]:
    return [t.expand(batch, -1, -1) for t in pair]


# The MLP

SCALES = {'dinov2': 'layer_scale2.lambda1', 'dinov3': 'layer_scale2.lambda1'}
TANH = ('siglip', 'siglip2', 'vivit')  # whose GELU is the one of tanh
READS: Mapping[str, dict[str, Any]] = {
    'norm': dict(ADAPTER),
    'residual': dict(ADAPTER, source='residual'),
    'branch': dict(ADAPTER, mode='sequential'),
}


@pytest.mark.parametrize('reads', READS)
@pytest.mark.parametrize('name', [n for n in HOSTS if not n.endswith(('bare', 'gated'))])
@torch.no_grad()
def test_an_adapter_reads_and_adds_where_it_should(name, reads):
    """Parallel to the MLP, of its input or of the stream in front of the norm, or behind it, without the stream."""
    model, host = copy_of(name), HOSTS[name]
    block = model.get_submodule(host.at('block')[-1])
    norm, whole = Seen(norm_of(name, block, 2)), Seen(block)
    adapted(model, name, 'bapat', dict(adapter=READS[reads]))
    output(model, host.inputs(2))
    fc1, fc2 = (model.get_submodule(host.at(place)[-1]) for place in ('fc1', 'fc2'))
    branch = linear(fc2, F.gelu(linear(fc1, norm.y), approximate='tanh' if name in TANH else 'none'))
    if name in SCALES:
        branch = branch * block.get_parameter(SCALES[name])
    adapter = model.get_submodule(host.at('mlp')[-1]).deltas.adapter
    read = dict(norm=norm.y, residual=norm.x, branch=branch)[reads]
    added = 0.1 * linear(adapter.up, linear(adapter.down, read).relu())
    assert added.abs().max() > 1e-3
    expected = (norm.x + branch + added).view_as(whole.y)
    torch.testing.assert_close(whole.y, expected, rtol=1e-5, atol=1e-5)


# Attention that transformers computes without torch's function


def eager(name: str) -> nn.Module:
    model = copy_of(name)
    model.set_attn_implementation('eager')
    return model


@pytest.mark.parametrize('name', ['vit', 'siglip2', 'vjepa2', 'videomae'])
@torch.no_grad()
def test_eager_attention_is_served_without_further_keys(name):
    models = [copy_of(name), eager(name)]
    for model in models:
        adapted(model, name, 'bapat')
    expected, ours = (output(model, HOSTS[name].inputs(2)) for model in models)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    attentions = models[1](**HOSTS[name].inputs(2), output_attentions=True).attentions
    assert len(attentions) == 2 and attentions[0].shape[1] == 2
    for method in ('prefix', 'prompt', 'concat'):
        model = eager(name)
        adapted(model, name, method)
        with refused('scaled_dot_product_attention', "attn_implementation='sdpa'"):
            output(model, HOSTS[name].inputs(2))
