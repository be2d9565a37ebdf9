"""MHPA by hand inside the attentions of every kind of host, one head at a time."""

from __future__ import annotations

import copy

import hf_hosts
import pytest
import timm
import timm_hosts
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpetl_mm.petl import MHPA, adapt
from vpetl_mm.petl.inner import Inner, Projection

SPEC = dict(type='MHPA', num_tokens=3)
EVERY = [f'mm_{n}' for n in tiny.HOSTS] + ['timm_vit', 'timm_eva02', 'timm_eva02_apart', 'timm_swin']
EVERY += ['timm_torchvision', 'hf_vit', 'hf_swin', 'hf_videomae']


def built(name: str, **options) -> tuple[nn.Module, object]:
    """A model with the adapter, and what runs it."""
    library, _, host = name.partition('_')
    spec = dict(mhpa=dict(SPEC, **options))
    if library == 'mm':
        model = tiny.HOSTS[host].build(spec)
        return model, lambda: tiny.features(model, tiny.HOSTS[host].sample())
    hosts = timm_hosts if library == 'timm' else hf_hosts
    model = copy.deepcopy(hosts.plain(host))  # which others share
    adapt(model, spec, train=[])
    tiny.randomised(model, std=0.2).eval()
    if library == 'timm':
        return model, lambda: timm_hosts.HOSTS[host].out(model)
    return model, lambda: model(**hf_hosts.HOSTS[host].inputs(2))


def queries(attention: nn.Module, x: Tensor) -> Tensor:
    """Those of an attention of any library, from its state's names."""
    w = {n: p for n, p in attention.named_parameters() if 'deltas' not in n}
    whole = next((w[n] for n in ('qkv.weight', 'in_proj_weight') if n in w), None)
    weight = (
        next(w[n] for n in ('q_proj.weight', 'query.weight') if n in w) if whole is None else whole[: len(whole) // 3]
    )
    names = ('qkv.bias', 'in_proj_bias', 'q_bias', 'q_proj.bias', 'query.bias')
    bias = next((w[n] for n in names if n in w), None)
    return x @ weight.T + (0 if bias is None else bias[: len(weight)])


@pytest.mark.parametrize('name', EVERY)
@torch.no_grad()
def test_the_heads_get_what_the_paper_says(name):
    """The attention's output with the adapter, less that without it, behind the output projection alone."""
    model, run = built(name)
    host = [m for m in model.modules() if 'deltas' in m._modules and 'mhpa' in m.deltas][1]
    calls = []

    def note(module: nn.Module, args: tuple, kwargs: dict, y: object) -> None:
        calls.append(([*args, *kwargs.values()][0], y[0] if isinstance(y, tuple) else y))

    hooks = [host.register_forward_hook(note, with_kwargs=True)]
    for on in (True, False):
        host.deltas.silent = not on
        run()
    hooks[0].remove()
    (x, y), (_, without) = calls
    own, heads = host.deltas.mhpa, host.deltas.mhpa.num_heads
    q = queries(host, F.layer_norm(x, x.shape[-1:], own.norm.weight, own.norm.bias))
    parts = zip(*(t.chunk(heads, dim=-1) for t in (q, own.K, own.V)), strict=True)
    added = torch.cat([(q @ K.T).relu() @ V for q, K, V in parts], dim=-1)
    assert heads > 1 and added.std() > 1e-3
    proj = next((m for n, m in host.named_modules() if n in ('proj', 'out_proj', 'o_proj')), None)
    assert (proj is None) == (name == 'hf_videomae' or (name.startswith('hf') and not hf_hosts.V5))
    if proj is not None:
        added = added @ proj.weight.T
    if isinstance(scale := getattr(host, 'gamma1', None), nn.Module):  # mmpretrain's, inside the attention
        added = scale(added)
    torch.testing.assert_close(y - without, added, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_with_one_head_the_first_table_is_trained():
    model, _ = built('timm_vit', multi_head=False)
    attention, x = model.blocks[0].attn, torch.randn(2, 5, 24)
    own, with_it = attention.deltas.mhpa, attention(x)
    attention.deltas.silent = True
    normed = F.layer_norm(x, (24,), own.norm.weight, own.norm.bias)
    D = F.linear(F.linear(normed, own.down.weight, own.down.bias).relu(), own.up.weight, own.up.bias)
    torch.testing.assert_close(with_it, attention(x) + D @ attention.proj.weight.T, atol=1e-5, rtol=1e-4)


def test_start_and_count():
    with torch.device('meta'):
        model = timm.models.VisionTransformer(embed_dim=768, depth=12, num_classes=0)
        assert adapt(model, dict(mhpa=dict(type='MHPA')), train=[]).count()['trainable'] == 571_392
    linear = nn.Module()
    linear.qkv = nn.Linear(768, 3 * 768)
    own = MHPA(768, 12, Projection(linear, Inner()))
    assert 0.019 < own.K.std() < 0.021 and 0.019 < own.V.std() < 0.021
    single = MHPA(768, 12, Projection(linear, Inner()), num_tokens=200, multi_head=False)
    assert sum(p.numel() for p in single.parameters()) == 2 * 768 + 769 * 200 + 201 * 768
    assert 0.019 < single.down.weight.std() < 0.021 and not single.up.bias.any()


def test_an_attention_that_does_not_tell_its_heads_is_refused():
    with tiny.refused('MaskUnitAttention', 'heads'):
        adapt(timm_hosts.plain('hiera'), dict(mhpa=SPEC), train=[])
    with tiny.refused('num_tokens'):
        adapt(timm_hosts.plain('vit'), dict(mhpa=dict(SPEC, num_tokens=0)), train=[])
