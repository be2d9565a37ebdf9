"""Prompt tuning against blocks that are given the tokens, instead of keys and values."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import HOSTS, Host, features
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import Prompt

D, N = 16, 3
VITS = pytest.mark.parametrize('name', ['videomae', 'vit', 'vit_layerscale'])
WINDOWS = pytest.mark.parametrize('name', ['swin3d', 'swin2d'])


def plain_of(host: Host, model: nn.Module, depth: int) -> nn.Module:
    """The model without deltas and with the host library's own attention."""
    plain = build_model(host.config(petl=dict(attention=None), depth=depth)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k})
    return plain


def embedded(model: nn.Module, x: Tensor) -> Tensor:
    """What the first block of ``model`` sees."""
    seen = []
    block = next(m for n, m in model.backbone.named_modules() if n in ('blocks.0', 'layers.0'))
    handle = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.backbone(x)
    handle.remove()
    return seen[0]


def finished(host: Host, plain: nn.Module, x: Tensor) -> Tensor:
    """The feature of the last block's tokens: the mean for videos, the class token for images."""
    norm = plain.get_submodule(host.final)
    return norm(x.mean(1)) if host.scope == 'mmaction' else norm(x)[:, 0]


def with_tokens(x: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([x, tokens.expand(len(x), -1, -1)], dim=1)


@VITS
@pytest.mark.parametrize('depth', [1, 2, 3])
@pytest.mark.parametrize('deep', [True, False], ids=['deep', 'shallow'])
def test_tokens_are_inserted_and_dropped_at_each_block_or_once(name, depth, deep):
    host = HOSTS[name]
    model = host.build({'prompt': dict(type='Prompt', num_tokens=N, deep=deep)}, depth=depth)
    plain, sample, blocks = plain_of(host, model, depth), host.sample(), host.blocks(model)
    with torch.no_grad():
        x = embedded(plain, sample)
        for number, block in enumerate(host.blocks(plain)):
            if deep:
                x = block(with_tokens(x, host.part(blocks[number], 'attn').deltas['prompt'].tokens))[:, :-N]
            else:
                x = block(x if number else with_tokens(x, blocks[0].deltas['prompt'].tokens))
        x = x if deep else x[:, :-N]
        torch.testing.assert_close(features(model, sample), finished(host, plain, x), atol=1e-5, rtol=1e-5)


@VITS
def test_two_shallow_prompts_and_a_deep_one(name):
    host = HOSTS[name]
    shallow = dict(type='Prompt', num_tokens=N, deep=False)
    model = host.build({'a': shallow, 'b': dict(shallow, num_tokens=1), 'c': dict(type='Prompt', num_tokens=2)})
    plain, sample = plain_of(host, model, 2), host.sample()
    first = host.blocks(model)[0].deltas
    with torch.no_grad():
        x = with_tokens(with_tokens(embedded(plain, sample), first['a'].tokens), first['b'].tokens)
        for ours, theirs in zip(host.blocks(model), host.blocks(plain), strict=True):
            x = theirs(with_tokens(x, host.part(ours, 'attn').deltas['c'].tokens))[:, :-2]
        expected = finished(host, plain, x[:, : -N - 1])
        torch.testing.assert_close(features(model, sample), expected, atol=1e-5, rtol=1e-5)


@WINDOWS
@pytest.mark.parametrize('masked', [False, True], ids=['plain', 'shifted'])
def test_deep_in_windows_joins_every_window_behind_norm1(name, masked):
    """The tokens go through norm1 and the projection, and are keys and values of every window, without a bias."""
    host = HOSTS[name]
    block = host.blocks(host.build({'prompt': dict(type='Prompt', num_tokens=N)}))[1]
    attention, n = host.part(block, 'attn'), host.tokens
    normed = block.norm1(attention.deltas['prompt'].tokens)
    _, k_p, v_p = (normed @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)

    def tune(x: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        unbiased = torch.zeros(len(scores), n, N)
        return q, torch.cat([k, k_p]), torch.cat([v, v_p]), torch.cat([scores, unbiased], dim=-1)

    x = torch.randn(4, n, D, generator=torch.Generator().manual_seed(0))
    mask = tiny.shift_mask(2, n) if masked else None
    expected = tiny.attention_by_hand(attention, x, tune, mask)
    torch.testing.assert_close(attention(x, mask=mask), expected, atol=1e-5, rtol=1e-5)


@WINDOWS
def test_shallow_prompts_are_refused_in_windows(name):
    with tiny.refused('block', 'prompt'):
        build_model(HOSTS[name].config({'prompt': dict(type='Prompt', num_tokens=N, deep=False)}))


def test_with_patt_the_prompts_go_through_the_adapted_projection():
    host = HOSTS['videomae']
    deltas = {'prompt': dict(type='Prompt', num_tokens=N), 'patt': dict(type='PATT', d_bottle=2)}
    model = host.build(deltas)
    twin = host.build({'patt': deltas['patt']})
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if '.prompt.' not in k})
    with torch.no_grad():
        x = embedded(twin, host.sample())
        for ours, theirs in zip(host.blocks(model), host.blocks(twin), strict=True):
            x = theirs(with_tokens(x, host.part(ours, 'attn').deltas['prompt'].tokens))[:, :-N]
        expected = finished(host, twin, x)
    torch.testing.assert_close(features(model, host.sample()), expected, atol=1e-5, rtol=1e-5)


def test_the_norm_is_the_backbones_and_no_parameter_of_the_prompt():
    host = HOSTS['vit']
    model = host.build({'prompt': dict(type='Prompt', num_tokens=N)})
    prompt = host.part(host.blocks(model)[0], 'attn').deltas['prompt']
    assert [n for n, _ in prompt.named_parameters()] == ['tokens']
    assert prompt.norm is host.blocks(model)[0].ln1


@pytest.mark.parametrize('dim', [16, 768])
def test_drawn_within_vpts_bound(dim):
    torch.manual_seed(0)
    prompt = Prompt(dim, nn.LayerNorm(dim), num_tokens=100)
    bound = (3 / dim) ** 0.5
    assert 0.95 * bound < prompt.tokens.abs().max() <= bound
    before = prompt.tokens.clone()
    prompt.reset_parameters()
    assert not torch.equal(prompt.tokens, before)


def test_vpts_own_bound_for_a_vit_b16():
    """VPT draws within sqrt(6 / (3 p^2 + d)) for patches of p = 16 pixels."""
    torch.manual_seed(0)
    drawn = Prompt(768, nn.LayerNorm(768), num_tokens=200).tokens
    assert drawn.abs().max().item() == pytest.approx((6 / (3 * 16**2 + 768)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(('deep', 'at'), [(True, 'block'), (False, 'attn')])
def test_a_place_that_contradicts_deep_is_refused(deep, at):
    with pytest.raises(UserError):
        build_model(HOSTS['vit'].config({'prompt': dict(type='Prompt', num_tokens=1, deep=deep, at=at)}))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(), ['num_tokens']),
        (dict(num_tokens=0), ['num_tokens', '0']),
        (dict(num_tokens=2, deep='yes'), ['deep', "'yes'"]),
        (dict(num_tokens=2, depth=3), ['depth', 'deep']),
        (dict(num_tokens=2, norm=1), ['norm', 'num_tokens']),
        (dict(num_tokens=2, deep=False, inserts=False), ['inserts']),
    ],
    ids=str,
)
def test_wrong_values_are_said(options, said):
    with tiny.refused(*said):
        build_model(HOSTS['vit'].config({'prompt': dict(type='Prompt', **options)}))


@pytest.mark.parametrize('out_indices', [[0, 1], [0]])
def test_shallow_prompts_are_refused_where_blocks_in_between_give_their_output(out_indices):
    config = HOSTS['vit'].config(dict(prompt=dict(type='Prompt', num_tokens=2, deep=False)))
    config['model']['backbone'].update(out_indices=out_indices, out_type='featmap')
    with pytest.raises(UserError, match='out_indices'):
        build_model(config)
