"""VeRA's random matrices: one pair from a seed, sliced, drawn again, in files or not (numbers: test_published)."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from vpetl_mm.petl import Plan, adapt

timm = pytest.importorskip('timm')
SIZES = dict(img_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=2, num_classes=3)


def adapted(**options) -> tuple[nn.Module, Plan]:
    model = timm.models.VisionTransformer(**SIZES).eval()
    return model, adapt(model, dict(vera=dict(type='VeRA', rank=4, **options)))


def test_one_pair_as_wide_as_the_widest_is_sliced_for_each_layer():
    model, _ = adapted(at=['qkv', 'fc1', 'fc2'])
    A, B = model.deltas['vera'].A, model.deltas['vera'].B
    assert A.shape == (4, 64) and B.shape == (64, 4) and not A.requires_grad
    delta = model.blocks[1].attn.qkv.deltas['vera']
    with torch.no_grad():
        delta.b['q'].fill_(0.5)
        delta.d['q'].copy_(torch.arange(4.0))
    weight, _ = delta.update(model.blocks[1].attn.qkv.weight, None).weights(model.blocks[1].attn.qkv.weight, None)
    change = weight - model.blocks[1].attn.qkv.weight
    torch.testing.assert_close(change[:16], 0.5 * B[:16] @ torch.diag(torch.arange(4.0)) @ A[:, :16])
    assert not change[16:].any()


def test_the_seed_says_what_is_drawn():
    same, other = adapted()[0].deltas['vera'], adapted(projection_prng_key=1)[0].deltas['vera']
    again = adapted()[0].deltas['vera']
    assert torch.equal(same.A, again.A) and torch.equal(same.B, again.B) and not torch.equal(same.A, other.A)
    assert same.A.abs().max() <= (6 / 16) ** 0.5 and same.B.abs().max() <= (6 / 4) ** 0.5  # Kaiming-uniform


def test_it_is_drawn_again_after_a_model_without_values():
    expected = adapted()[0].deltas['vera']
    with torch.device('meta'):
        model, plan = adapted()
    model.to_empty(device='cpu')
    plan.reset_parameters()
    assert torch.equal(model.deltas['vera'].A, expected.A) and torch.equal(model.deltas['vera'].B, expected.B)


@pytest.mark.parametrize('saved', [True, False])
def test_files_hold_the_pair_or_the_seed_draws_it(saved):
    plan = adapted(save_projection=saved)[1]
    assert ({'deltas.vera.A', 'deltas.vera.B'} <= plan.state_dict().keys()) == saved


def test_a_state_of_other_matrices_that_it_does_not_hold_is_refused_whole():
    plan = adapted(save_projection=False)[1]
    state = {k: v.clone() for k, v in plan.state_dict().items()}
    assert state['deltas.vera.checksum'] > 0
    plan.load_state_dict(state)
    before = {k: v.clone() for k, v in plan.state_dict().items()}
    state = {k: v + 1 for k, v in state.items()}
    with tiny.refused('deltas.vera.checksum', 'frozen'):
        plan.load_state_dict(state)
    assert all(torch.equal(v, before[k]) for k, v in plan.state_dict().items())


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(projection_prng_key=-1), 'projection_prng_key'),
        (dict(projection_prng_key=10**30), 'projection_prng_key'),
        (dict(save_projection=1), 'save_projection'),
        (dict(slots='vq'), 'slots'),
        (dict(d_initial=10**400), 'd_initial'),
    ],
)
def test_what_does_not_fit_is_said(options, said):
    with tiny.refused(said):
        adapted(**options)
