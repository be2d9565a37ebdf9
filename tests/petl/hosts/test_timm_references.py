"""What deltas do inside the attentions and around the MLPs of timm and torch, against plain products by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn
from timm_hosts import HOSTS, plain
from torch import Tensor, nn

from vpetl_mm.petl import adapt

Pair = tuple[Tensor, Tensor]
JOINED = dict(
    prefix=dict(type='Prefix', num_tokens=3, d_middle=5),
    prompt=dict(type='Prompt', num_tokens=2),
    lora=dict(type='LoRA', slots='qkv', rank=2),
    added=dict(type='PATT', d_bottle=4, slots='kv', scale=0.6),
)
CONCAT = dict(patt=dict(type='PATT', d_bottle=4, mode='concat', scale=0.7))


def projected(a: nn.Module, x: Tensor) -> list[Tensor]:
    """q, k and v, (..., d) each, from the weights and biases as they are called in each library."""
    own = dict(a.named_parameters(recurse=True))
    if 'q_proj.weight' in own:
        return [F.linear(x, own[f'{s}_proj.weight'], own.get(f'{s}_proj.bias')) for s in 'qkv']
    weight = own['qkv.weight'] if 'qkv.weight' in own else own['in_proj_weight']
    bias = own.get('qkv.bias', own.get('in_proj_bias'))
    if 'q_bias' in own:
        bias = torch.cat([own['q_bias'], torch.zeros_like(own['q_bias']), own['v_bias']])
    return [*F.linear(x, weight, bias).chunk(3, dim=-1)]


def bottleneck(state: dict[str, Tensor], name: str, x: Tensor) -> Pair:
    """up(tanh(down(x))) for k and v."""
    h = torch.tanh(F.linear(x, state[f'{name}.down.weight'], state[f'{name}.down.bias']))
    return F.linear(h, state[f'{name}.up.weight'], state[f'{name}.up.bias']).chunk(2, -1)


def tuned(a: nn.Module, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """q, k and v with what LoRA and PATT add."""
    low = [x @ state[f'lora.A.{s}.weight'].T @ state[f'lora.B.{s}.weight'].T for s in 'qkv']
    q, k, v = (own + more for own, more in zip(projected(a, x), low, strict=True))
    to_k, to_v = bottleneck(state, 'added', x)
    return [q, k + 0.6 * to_k, v + 0.6 * to_v]


def turned(x: Tensor, rope: Tensor, half: bool) -> Tensor:
    """Rotary positions of one head, (N, w): ``rope`` holds sines, then cosines, (N, 2 w)."""
    sin, cos = rope.chunk(2, -1)
    if half:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin
    other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + other * sin


def heads_of(a: nn.Module, x: Tensor) -> Tensor:
    """(N, d) to (heads, N, w)."""
    heads = a.heads if hasattr(a, 'heads') else a.num_heads
    return x.unflatten(-1, (heads, -1)).transpose(0, 1)


def one(a: nn.Module, q: Tensor, k: Tensor, v: Tensor, more: list[Pair], bias: Tensor | None) -> Tensor:
    """softmax(q [k', k]^T / sqrt(w) + bias) [v', v] of one set of tokens, (heads, N, w) to (N, d)."""
    keys = torch.cat([*(heads_of(a, k) for k, _ in more), k], 1)
    values = torch.cat([*(heads_of(a, v) for _, v in more), v], 1)
    scores = q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5
    scores = scores if bias is None else scores + bias
    return (scores.softmax(-1) @ values).transpose(0, 1).flatten(1)


def position_bias(a: nn.Module) -> Tensor | None:
    """Of windows, (heads, N, N)."""
    if not hasattr(a, 'relative_position_bias_table'):
        return None
    return a.relative_position_bias_table[a.relative_position_index].permute(2, 0, 1)


def by_hand(
    a: nn.Module, x: Tensor, state: dict[str, Tensor], norm: nn.Module | None, kwargs: dict[str, Any]
) -> Tensor:
    """An attention's output for (B, N, d) with the deltas that ``state`` holds."""
    own, prefix = tuned(a, state, x), bottleneck(state, 'prefix', state['prefix.tokens'])
    tokens = state['prompt.tokens'] if norm is None else norm(state['prompt.tokens'])
    _, k, v = tuned(a, state, tokens)
    key_norm = getattr(a, 'k_norm', None) or nn.Identity()
    shared = [prefix, (key_norm(heads_of(a, k)).transpose(0, 1).flatten(1), v)]
    seen = sum(len(k) for k, _ in shared)
    mask = kwargs.get('mask', kwargs.get('attn_mask'))

    outs = []
    for b, tokens in enumerate(x):
        q, k, v = (heads_of(a, p[b]) for p in own)
        q, k = (getattr(a, 'q_norm', None) or nn.Identity())(q), key_norm(k)
        if kwargs.get('rope') is not None:
            n = a.num_prefix_tokens
            q, k = (torch.cat([t[:, :n], turned(t[:, n:], kwargs['rope'], a.rotate_half)], 1) for t in (q, k))
        hidden = None
        if mask is not None:  # of windows, (nW, N, N), or of the padding, (B, 1, N, N)
            hidden = mask[b % len(mask)] if mask.dim() == 3 else mask[b]
        bias = position_bias(a)
        if hidden is not None:
            bias = hidden.expand(len(q), -1, -1) if bias is None else bias + hidden
        more = list(shared)
        columns = [] if bias is None else [bias.new_zeros(*bias.shape[:2], seen), bias]
        if 'patt.up.weight' in state:
            more.append(tuple(0.7 * part for part in bottleneck(state, 'patt', tokens)))
            if columns:  # the mask of their tokens, without a position bias
                of_tokens = bias.new_zeros(bias.shape) if hidden is None else hidden.expand(len(q), -1, -1)
                columns.insert(1, of_tokens)
        outs.append(spread(a, q, k, v, more, torch.cat(columns, -1) if columns else None))
    y = torch.stack(outs)
    y = (getattr(a, 'norm', None) or nn.Identity())(y)
    if getattr(a, 'gate', None) is not None:
        y = y * torch.sigmoid(F.linear(x, a.gate.weight, a.gate.bias))
    out = a.proj if hasattr(a, 'proj') else a.out_proj
    return F.linear(y, out.weight, out.bias)


def spread(a: nn.Module, q: Tensor, k: Tensor, v: Tensor, more: list[Pair], bias: Tensor | None) -> Tensor:
    """:func:`one`, on Hiera for each mask unit, whose tokens lie ``units`` apart, with pooled queries."""
    if not hasattr(a, 'q_stride'):
        return one(a, q, k, v, more, bias)
    n = q.shape[1]
    units = n // (a.q_stride * a.window_size) if a.use_mask_unit_attn else 1
    parts = []
    for unit in range(units):
        of_unit = torch.arange(unit, n, units)
        pooled = q[:, of_unit].unflatten(1, (a.q_stride, -1)).amax(1)
        parts.append(one(a, pooled, k[:, of_unit], v[:, of_unit], more, None))
    return torch.stack(parts, 1).flatten(0, 1)


def calls_of(name: str) -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """What each attention of the plain model is given: its path -> its tokens and the other arguments."""
    model, host, calls = plain(name), HOSTS[name], {}
    for block in host.blocks:
        path = f'{block}.{host.attn}'

        def note(module, args, kwargs, path=path):
            calls[path] = (args[0], {k: v for k, v in kwargs.items() if isinstance(v, Tensor)})

        model.get_submodule(path).register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        host.out(model)
    return calls


SERVED = [name for name in HOSTS if name != 'diff']
PAIRS = [(name, more) for name in SERVED for more in ('shared', 'concat') if more == 'shared' or HOSTS[name].ordered]


@pytest.mark.parametrize(('name', 'more'), PAIRS, ids=['-'.join(pair) for pair in PAIRS])
@torch.no_grad()
def test_further_keys_inside_the_attention(name, more):
    host, model = HOSTS[name], plain(name)
    original = plain(name)
    plan = adapt(model, {**JOINED, **(CONCAT if more == 'concat' else {})}, train=[])
    generator = torch.Generator().manual_seed(5)
    for parameter in plan.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    calls = calls_of(name)
    assert len(calls) == len(host.blocks)
    for path, (x, kwargs) in calls.items():
        attention, block = model.get_submodule(path), path.removesuffix(f'.{host.attn}')
        state = {k.partition('deltas.')[2]: v for k, v in attention.state_dict().items() if 'deltas.' in k}
        own = original.get_submodule(block)
        norm = None if name in ('res_post', 'eva_post') else getattr(own, 'norm1', getattr(own, 'ln_1', None))
        expected = by_hand(own.get_submodule(host.attn), x, state, norm, kwargs)
        further = dict(need_weights=False) if isinstance(attention, nn.MultiheadAttention) else {}
        y = attention(x, **kwargs, **further)
        torch.testing.assert_close(y[0] if isinstance(y, tuple) else y, expected, atol=1e-5, rtol=1e-5)
    masked = {'swin': 'mask', 'naflex_padded': 'attn_mask'}.get(name)
    if masked:  # what is tested above had something to hide
        assert any((kwargs.get(masked, torch.zeros(1)) < 0).any() for _, kwargs in calls.values())


@pytest.mark.parametrize('name', ['vit', 'eva02', 'swin', 'hiera', 'naflex_gated'])
@torch.no_grad()
def test_the_switch_of_fused_attention_changes_nothing(name):
    """With TIMM_FUSED_ATTN=0 timm multiplies by itself; what is opened is then switched back."""
    outputs = []
    for fused in (True, False):
        set_fused_attn(fused, fused)
        try:
            model = HOSTS[name].make().eval()
        finally:
            set_fused_attn(True)
        model.load_state_dict(plain(name).state_dict())
        attention = model.get_submodule(f'{HOSTS[name].blocks[0]}.{HOSTS[name].attn}')
        assert attention.fused_attn == fused
        plan = adapt(model, JOINED, train=[])
        generator = torch.Generator().manual_seed(5)
        for parameter in plan.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        outputs.append(HOSTS[name].out(model))
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-6)


ADAPTERS = {
    'beside': dict(type='AdaptMLP', d_bottle=4, scale=0.5),
    'behind': dict(type='AdaptMLP', d_bottle=4, scale=0.5, mode='sequential'),
    'stream': dict(type='AdaptMLP', d_bottle=4, scale=0.5, source='residual'),
}
POST = ('res_post', 'eva_post')  # whose norms are behind attention and MLP
AROUND = [(name, how) for name in HOSTS for how in ADAPTERS if (how, name in POST) != ('stream', True)]


def inputs_of_blocks(name: str) -> dict[str, dict[str, Any]]:
    """What each block of the plain model is given and returns, with the inputs of its MLP and of its second norm."""
    model, host, seen = plain(name), HOSTS[name], {}
    for block in host.blocks:
        own = seen[block] = {}
        module = model.get_submodule(block)

        def note(module, args, kwargs, y=None, own=own, part='block'):
            own[part] = (args, kwargs, y)

        def note_input(module, args, own=own, part='mlp'):
            own[part] = args[0]

        module.register_forward_hook(note, with_kwargs=True)
        module.mlp.register_forward_pre_hook(note_input)
        norm = module.norm2 if hasattr(module, 'norm2') else module.ln_2
        norm.register_forward_pre_hook(lambda m, args, own=own: own.update(stream=args[0]))
    with torch.no_grad():
        host.out(model)
    return seen


@pytest.mark.parametrize(('name', 'how'), AROUND, ids=['-'.join(pair) for pair in AROUND])
@torch.no_grad()
def test_adapters_around_the_mlp(name, how):
    """Whatever LayerScale and norms the block has: the adapter's output adds to the block's."""
    model = plain(name)
    plan = adapt(model, dict(adapter=ADAPTERS[how]), train=[])
    generator = torch.Generator().manual_seed(6)
    for parameter in plan.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    for path, seen in inputs_of_blocks(name).items():
        block, (args, kwargs, y) = model.get_submodule(path), seen['block']
        stream = seen['mlp'] if name in POST else seen['stream']
        read = dict(beside=seen['mlp'], behind=y.reshape(stream.shape) - stream, stream=stream)[how]
        adapter = block.mlp.deltas.adapter
        h = F.linear(read, adapter.down.weight, adapter.down.bias).clamp(min=0)
        expected = y + 0.5 * F.linear(h, adapter.up.weight, adapter.up.bias).view_as(y)
        torch.testing.assert_close(block(*args, **kwargs), expected, atol=1e-5, rtol=1e-5)
