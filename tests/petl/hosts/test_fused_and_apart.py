"""q, k and v of one layer or of three: with the same weights, every delta does the same."""

from __future__ import annotations

import pytest
import timm
import tiny
import torch
from timm_hosts import CLASSES, VIT, D
from torch import Tensor, nn

from vpetl_mm.petl import Sparse, adapt, layout_of
from vpetl_mm.petl.placing import put

SIZES = {k: v for k, v in VIT.items() if k != 'img_size'}
NAFLEX = dict(SIZES, class_token=True, global_pool='token')
# the fused form, and the one with three layers
FORMS = {
    'q_bias and v_bias': (
        lambda: timm.create_model('eva02_tiny_patch14_224', **VIT),
        lambda: timm.create_model('eva02_tiny_patch14_224', **VIT, qkv_fused=False),
    ),
    'rotary': (
        lambda: timm.create_model('vit_small_patch16_rope_224', **VIT, qkv_fused=True),
        lambda: timm.create_model('vit_small_patch16_rope_224', **VIT, qkv_fused=False),
    ),
    'attention of ViT': (
        lambda: timm.create_model('naflexvit_base_patch16_gap', **NAFLEX, qk_norm=True),
        lambda: timm.create_model(
            'naflexvit_base_patch16_gap', **NAFLEX, qk_norm=True, attn_type='rope', qkv_fused=False
        ),
    ),
}
METHODS = {
    'PATT': {slots: dict(type='PATT', d_bottle=4, slots=slots) for slots in ('kv', 'qv', 'qkv')},
    'concat': dict(patt=dict(type='PATT', d_bottle=4, mode='concat')),
    'LoRA': dict(one=dict(type='LoRA', rank=3, slots='qkv'), two=dict(type='LoRA', rank=2, slots='qv', alpha=4)),
    'LinearAdapter': dict(
        behind=dict(type='LinearAdapter', d_bottle=3, slots='qkv'),
        beside=dict(type='LinearAdapter', d_bottle=3, slots='kv', mode='parallel'),
    ),
    'Prompt': dict(prompt=dict(type='Prompt', num_tokens=3)),
    'Sparse': {},
}


def apart_names(fused: nn.Module) -> dict[str, Tensor]:
    """The state of the fused form, under the names of the other."""
    state = {}
    for name, value in fused.state_dict().items():
        owner, _, last = name.rpartition('.')
        if owner.endswith('.qkv') and '.deltas.' not in name:
            for slot, part in zip('qkv', value.chunk(3), strict=True):
                state[f'{owner.removesuffix("qkv")}{slot}_proj.{last}'] = part
        elif last in ('q_bias', 'v_bias'):
            state[f'{owner}.{last[0]}_proj.bias'] = value
        else:
            other = name.replace('.ls1.gamma', '.gamma_1').replace('.ls2.gamma', '.gamma_2')
            state[other.replace('.qkv.deltas.', '.deltas.')] = value
    return state


def with_deltas(model: nn.Module, method: str) -> None:
    adapt(model, METHODS[method], train=[])
    if method == 'Sparse':
        generator = torch.Generator().manual_seed(4)
        for site in layout_of(model).sites(model, 'qkv'):
            weight, bias = (torch.randperm(n, generator=generator)[:20].sort().values for n in (3 * D * D, 3 * D))
            bias = bias[(bias < D) | (bias >= 2 * D)]  # of q and v: no key has a bias in every form
            put(layout_of(model), model, site, 'sparse', Sparse(weight, bias).to(torch.float64))


def run(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of the deltas by their names without ``qkv``."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.to(next(model.parameters()).dtype)
    y = model(x)
    y.square().sum().backward()
    named = {n.replace('.qkv.deltas.', '.deltas.'): p.grad for n, p in model.named_parameters() if '.deltas.' in n}
    return y.detach(), named


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=['float64', 'float32'])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('form', FORMS)
def test_one_layer_and_three_are_the_same(form, method, dtype, record_property):
    fused, apart = (make() for make in FORMS[form])
    for model in (fused, apart):
        with_deltas(model.double(), method)
    tiny.randomised(fused.eval(), std=0.2)
    state = apart_names(fused)
    keys = apart.eval().load_state_dict(state, strict=False)
    assert not keys.unexpected_keys and all(k.endswith('k_proj.bias') for k in keys.missing_keys)
    (y, grads), (z, others) = (run(model.to(dtype)) for model in (fused, apart))
    assert y.shape == (2, CLASSES) and grads.keys() == others.keys() and len(grads) >= 2
    differences = [(y - z).abs().max(), *((grads[n] - others[n]).abs().max() / grads[n].abs().max() for n in grads)]
    record_property('largest', f'{max(differences):.1e}')
    print(f'{form}, {method}, {dtype}: outputs {differences[0]:.1e}, gradients {max(differences[1:]):.1e}')
    assert differences[0] < (1e-6 if dtype == torch.float32 else 1e-12) * y.abs().max().clamp(min=1)
    free = {n for n in grads if n.endswith('.up.k.bias')}  # is nothing to the softmax
    for name in grads.keys() - free:
        assert grads[name].abs().max() > 1e-6, name
        torch.testing.assert_close(others[name], grads[name], rtol=1e-5, atol=1e-6 * float(grads[name].abs().max()))
