"""FacT where the width changes from stage to stage: each width has factors of its own."""

from __future__ import annotations

import pytest
import tiny
import torch

from vpetl_mm import build_model

SITES = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')


@pytest.mark.parametrize('form', ['TT', 'TK'])
def test_each_width_has_factors_of_its_own(form):
    r, widths, depths, s = 3, (16, 32), (1, 2), 0.5
    deltas = dict(fact=dict(type='FacT', form=form, rank=r, scale=s))
    model = build_model(tiny.config(deltas, depths=depths)).eval()
    slices = {16: 12 * 1, 32: 12 * 2}
    own = dict(TT=lambda d: slices[d] * r * r, TK=lambda d: slices[d] * r + r**3)[form]
    assert model.plan.count()['by']['fact'] == sum(2 * d * r + own(d) for d in widths)
    tiny.randomised(model)
    factors = dict(model.named_parameters())
    for stage, d in enumerate(widths):
        U, V = (factors[f'backbone.deltas.fact.{d}.{name}.weight'] for name in 'UV')
        for block in range(depths[stage]):
            path, first = f'backbone.layers.{stage}.blocks.{block}', 12 * block
            cores = None
            if form == 'TK':
                C, P = (factors[f'backbone.deltas.fact.{d}.{name}'] for name in 'CP')
                cores = torch.einsum('abt,ti->iab', C, P)
            for site, number in zip(SITES, (3, 1, 4, 4), strict=True):
                layer = model.get_submodule(f'{path}.{site}')
                S = layer.deltas['fact'].S if cores is None else cores[first : first + number]
                first += number
                parts = [s * (U.T @ core @ V.T).T for core in S]
                changed = layer.deltas['fact'].update(layer.weight, layer.bias).weights(layer.weight, layer.bias)[0]
                wanted = layer.weight + torch.cat(parts, dim=1 if site == 'mlp.fc2' else 0)
                torch.testing.assert_close(changed, wanted)
