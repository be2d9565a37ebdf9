"""DTL: against the published model, where gradients run, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vpetl_mm.petl import adapt

timm = pytest.importorskip('timm')
GOLDEN = Path(__file__).parents[2].parent / 'shared/methods/golden'


def vit(depth: int = 4, **options) -> nn.Module:
    sizes = dict(img_size=16, patch_size=4, embed_dim=16, num_heads=2, num_classes=3) | options
    return timm.models.VisionTransformer(depth=depth, **sizes).eval()


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize('case', ['dtl_vit', 'dtl_plus_vit'])
def test_is_the_published_model(case):
    if not (file := GOLDEN / f'{case}.npz').exists():
        pytest.skip('the reference tensors are not here')
    with np.load(file) as content:
        told = json.loads(str(content['config']))
        tensors = {k: torch.from_numpy(content[k]) for k in content if k != 'config'}
    x = tensors['input'].clone().requires_grad_()
    sizes = dict(img_size=x.shape[-1], patch_size=told['patch'], embed_dim=told['embed'], num_heads=told['heads'])
    model = vit(told['depth'], **sizes, num_classes=tensors['w/head.weight'].shape[0], global_pool='avg')
    weights = {k.removeprefix('w/'): v for k, v in tensors.items() if k.startswith('w/') and 'lora' not in k}
    model.load_state_dict(
        {k.replace('norm.', 'fc_norm.') if k.startswith('norm.') else k: v for k, v in weights.items()}
    )
    plan = adapt(
        model, dict(dtl=dict(type='DTL', rank=told['rank'], beta=told['beta'], kernel=told['fusion'] or None))
    )
    ours = {f'lora_dict.{i}.lora_{n}': f'blocks.{i}.deltas.dtl.{n}.weight' for i in told['lora_before'] for n in 'AB'}
    ours |= {'lora_fusion.weight': 'deltas.dtl.conv.weight'} if told['fusion'] else {}
    ours |= {name: name for name in ('head.weight', 'head.bias')}
    assert {*ours} == {*told['trained']}
    plan.load_state_dict({ours[n]: tensors[f'w/{n}'] for n in ours})
    y = model(x)
    y.square().sum().backward()
    assert relative(y.detach(), tensors['output']) < 1e-5 and relative(x.grad, tensors['gx']) < 1e-4
    trained = dict(plan.named_parameters())
    for theirs, name in ours.items():
        assert relative(trained[name].grad, tensors[f'g/{theirs}']) < 1e-4, theirs


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


def test_a_backbone_whose_width_changes_is_refused():
    swin = timm.create_model('swin_tiny_patch4_window7_224', img_size=56, pretrained=False, num_classes=2)
    with tiny.refused('DTL', 'one width', '[96, 192, 384, 768]'):
        adapt(swin, dict(dtl=dict(type='DTL')))
