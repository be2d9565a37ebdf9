"""Blocks that add the residual outside any method: what notes and reads the stream, in stacks and in copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm_hosts import HOSTS, plain
from torch import nn

from vpetl_mm.petl import Plan, Sparse, adapt, layout_of
from vpetl_mm.petl.host import attach
from vpetl_mm.petl.placing import put

STREAM = dict(adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5, source='residual'))


def adapted() -> nn.Module:
    model = plain('dinov2')
    plan = adapt(model, STREAM, train=[])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in plan.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def entry_of(size: int) -> Sparse:
    sparse = Sparse(torch.tensor([1, size - 1]), torch.tensor([0]))
    with torch.no_grad():
        sparse.weight_value.copy_(torch.tensor([0.5, -0.4]))
        sparse.bias_value.fill_(0.3)
    return sparse


@torch.no_grad()
def test_the_norm_that_notes_the_stream_can_be_a_host_itself():
    """Single entries of the second norm, put there before or behind the adapter that reads the stream."""
    x = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(1))
    block = adapted().blocks[0]
    first = plain('dinov2').blocks[0]
    attach(block.norm2, 'sparse', entry_of(24), 'norm')
    stream = x + first.ls1(first.attn(first.norm1(x)))
    weight, bias = first.norm2.weight.clone(), first.norm2.bias.clone()
    weight[[1, 23]] += torch.tensor([0.5, -0.4])
    bias[0] += 0.3
    own = block.mlp.deltas.adapter
    h = F.linear(stream, own.down.weight, own.down.bias).clamp(min=0)
    normed = F.layer_norm(stream, (24,), weight, bias, first.norm2.eps)
    expected = stream + first.ls2(first.mlp(normed)) + 0.5 * F.linear(h, own.up.weight, own.up.bias)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)

    other = plain('dinov2')
    attach(other.blocks[0].norm2, 'sparse', entry_of(24), 'norm')
    site = next(layout_of(other).sites(other, 'mlp'))
    put(layout_of(other), other, site, 'adapter', copy.deepcopy(own))
    torch.testing.assert_close(other.blocks[0](x), expected, atol=1e-5, rtol=1e-5)


def test_nothing_stays_noted():
    """After a pass no tensor is kept, which copies and memory would pay for."""
    model = adapted()
    adapted_too = plain('dinov2')
    adapt(adapted_too, dict(adapter=dict(type='AdaptMLP', d_bottle=4)), train=[])
    for one in (model, adapted_too):
        HOSTS['dinov2'].out(one)
        kept = [(n, k) for n, m in one.named_modules() for k, v in vars(m).items() if k == 'noted' and v is not None]
        assert not kept


@pytest.mark.parametrize('source', ['norm', 'residual'])
@torch.no_grad()
def test_a_dropped_branch_keeps_the_adapter(source):
    """It is outside stochastic depth, as in AdaptFormer's published ViT."""
    model = HOSTS['dinov2'].make()
    model.blocks[0].drop_path2 = DropPath(0.999)
    adapt(model, dict(adapter=dict(STREAM['adapter'], source=source)), train=[])
    tiny.randomised(model.train())
    x = torch.randn(4, 7, 24, generator=torch.Generator().manual_seed(2))
    block, own = model.blocks[0], model.blocks[0].mlp.deltas.adapter
    torch.manual_seed(0)
    y = block(x)
    stream = x + block.ls1(block.attn(block.norm1(x)))
    read = (
        stream
        if source == 'residual'
        else F.layer_norm(stream, (24,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
    )
    h = F.linear(read, own.down.weight, own.down.bias).clamp(min=0)
    torch.testing.assert_close(y, stream + 0.5 * F.linear(h, own.up.weight, own.up.bias))


def normal(model: nn.Module, plan: Plan, seed: int) -> None:
    """Draw what a plan trains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(plan.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + ('gamma' in name))


@pytest.mark.parametrize('between', ['Convpass', 'Mona'])
@pytest.mark.parametrize('first', ['norms', 'between'])
def test_norms_that_are_tuned_beside_a_delta_on_the_stream_are_as_their_merged_selves(between, first):
    """The second norm sees the changed stream; a delta that reads the first norm sees it as tuned."""
    norms, between = dict(type='SSF', at=['norm1', 'norm2']), dict(type=between, d_bottle=4)
    both = dict(norms=norms, between=between) if first == 'norms' else dict(between=between, norms=norms)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model, merged = plain('vit'), plain('vit')
    plan = adapt(model, both, train=[])
    normal(model, plan, 2)
    state = plan.state_dict()
    alone = adapt(merged, dict(norms=norms), train=[])
    alone.load_state_dict({k: v for k, v in state.items() if '.deltas.between' not in k})
    alone.merge()
    rest = adapt(merged, dict(between=between), train=[])
    rest.load_state_dict({k: v for k, v in state.items() if '.deltas.norms.' not in k})
    torch.testing.assert_close(model(x), merged(x), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_leaves_nothing_noted():
    model = plain('vit')
    plan = adapt(model, dict(pass_=dict(type='Convpass', d_bottle=4)))
    model.set_grad_checkpointing()
    model.train()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in plan.parameters())
    for block in model.blocks:
        assert block.norm1.noted is None and block.norm2.noted is None and not block.norm2.awaited


def test_a_name_that_two_places_of_one_delta_need_is_refused():
    with tiny.refused('mona_block', 'of this name already'):
        adapt(plain('vit'), dict(mona=dict(type='Mona'), mona_block=dict(type='AdapterPlus')))


def test_looking_at_places_and_a_refusal_leave_no_trace():
    model = plain('swin')
    layout = layout_of(model)
    assert layout.width(model) and list(layout.sites(model, 'mlp'))
    with tiny.refused('num_frames'):
        adapt(model, dict(mona=dict(type='Mona'), st=dict(type='STAdapter')))
    assert b'vpetl' not in pickle.dumps(model)


def test_prompts_pass_the_first_norm_too_and_are_not_what_is_read():
    """As many prompts as tokens: the shapes would fit."""
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = plain('vit')
    deltas = dict(
        prompt=dict(type='Prompt', num_tokens=model.pos_embed.shape[1]), beside=dict(type='Convpass', at='between')
    )
    adapt(model, deltas, train=[])
    seen = {}
    block = model.blocks[0]
    block.register_forward_pre_hook(lambda m, args: seen.setdefault('x', args[0]))
    block.deltas['beside'].register_forward_pre_hook(lambda m, args: seen.setdefault('read', args[0]))
    model(x)
    own = block.norm1
    torch.testing.assert_close(seen['read'], F.layer_norm(seen['x'], (24,), own.weight, own.bias, own.eps))
