"""DTL: where gradients run, and what it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vpetl_mm.petl import adapt

timm = pytest.importorskip('timm')


def vit(depth: int = 4, **options) -> nn.Module:
    sizes = dict(img_size=16, patch_size=4, embed_dim=16, num_heads=2, num_classes=3) | options
    return timm.models.VisionTransformer(depth=depth, **sizes).eval()


def test_no_gradient_runs_through_the_first_blocks():
    model = vit()
    plan = adapt(model, dict(dtl=dict(type='DTL')))
    kept: dict[int, bool] = {}
    for i, block in enumerate(model.blocks):
        block.mlp.register_forward_hook(lambda m, args, y, i=i: kept.__setitem__(i, y.requires_grad))
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert kept == {0: False, 1: False, 2: False, 3: True}  # M = 3: what it adds enters the fourth block
    assert all(p.grad is not None for p in plan.parameters())


def test_the_count():
    """2 d r L, and d k^2 for DTL+: 36,864 and 6,912 on a ViT-B."""
    with torch.device('meta'):
        model = timm.models.VisionTransformer(num_classes=0)
    plan = adapt(model, dict(dtl=dict(type='DTL', kernel=3)), train=[])
    assert plan.count()['by'] == {'dtl': 36_864 + 6_912}


def test_copies_have_a_stream_of_their_own():
    model = vit()
    plan = adapt(model, dict(dtl=dict(type='DTL', kernel=3)))
    for parameter in plan.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), expected)
        assert twin.blocks[0].deltas['dtl'].stream is twin.blocks[3].deltas['dtl'].stream
        assert twin.blocks[0].deltas['dtl'].stream is not model.blocks[0].deltas['dtl'].stream
        assert twin.deltas['dtl'] is twin.blocks[3].deltas['dtl'].shared


def test_blocks_that_run_again_in_the_backward_pass_are_refused():
    model = vit()
    adapt(model, dict(dtl=dict(type='DTL')))
    x = model.patch_embed(torch.randn(2, 3, 16, 16)).requires_grad_()
    for block in model.blocks:
        x = checkpoint(block, x, use_reentrant=False)
    with tiny.refused('DTL', 'in their order'):
        x.sum().backward()


@pytest.mark.parametrize(
    ('options', 'said'),
    [(dict(rank=0), 'rank'), (dict(first=5), '4 blocks'), (dict(kernel=0), 'kernel'), (dict(beta='x'), 'beta')],
)
def test_what_does_not_fit_is_said(options, said):
    with tiny.refused(said):
        adapt(vit(), dict(dtl=dict(type='DTL', **options)))


def test_tokens_that_enter_behind_the_first_block_are_refused():
    deltas = dict(prompt=dict(type='Prompt', num_tokens=2, deep=False), dtl=dict(type='DTL'))
    for order in (deltas, dict(reversed(deltas.items()))):
        with tiny.refused('DTL', 'the same tokens'):
            adapt(vit(), order)


def test_a_backbone_whose_width_changes_is_refused():
    swin = timm.create_model('swin_tiny_patch4_window7_224', img_size=56, pretrained=False, num_classes=2)
    with tiny.refused('DTL', 'one width', '[96, 192, 384, 768]'):
        adapt(swin, dict(dtl=dict(type='DTL')))
