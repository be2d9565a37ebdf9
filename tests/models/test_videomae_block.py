"""VideoMAE's block in two branches, against mmaction2's."""

from __future__ import annotations

import pytest
import tiny
import torch
from mmaction.models.backbones.vit_mae import Block
from steps import same, step
from torch import Tensor

from vpetl_mm import build_model
from vpetl_mm.models.videomae_block import PETLVideoMAEBlock
from vpetl_mm.petl.host import detach

OPTIONS = {
    'plain': dict(),
    'gammas': dict(init_values=0.5),
    'drop_path': dict(drop_path_rate=0.5),
    'all': dict(init_values=0.5, drop_path_rate=0.5, drop_rate=0.3, attn_drop_rate=0.3),
}


def pair(options: dict) -> tuple[Block, PETLVideoMAEBlock]:
    theirs = tiny.randomised(Block(embed_dims=16, num_heads=2, **options)).train()
    ours = PETLVideoMAEBlock(embed_dims=16, num_heads=2, **options).train()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def sample() -> Tensor:
    return torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_equals_the_hosts(options):
    theirs, ours = pair(options)
    same(step(ours, sample()), step(theirs, sample()))


@pytest.mark.parametrize('options', [OPTIONS['plain'], OPTIONS['gammas']], ids=['plain', 'gammas'])
def test_the_branch_is_what_the_mlp_adds(options):
    _, block = pair(options)
    x = sample()
    gamma = block.gamma_2 if options else 1
    torch.testing.assert_close(block.mlp_branch(x), gamma * block.mlp(block.norm2(x)))


def test_every_block_of_the_model_is_one_and_keys_are_the_hosts():
    from mmaction.models.backbones.vit_mae import VisionTransformer

    host = tiny.HOSTS['videomae']
    for petl in ({}, dict(attention=None)):
        model = build_model(host.config(petl=petl))
        assert all(isinstance(b, PETLVideoMAEBlock) for b in host.blocks(model))
        sizes = {k: v for k, v in host.backbone(2).items() if k != 'type'}
        assert list(model.backbone.state_dict()) == list(VisionTransformer(**sizes).state_dict())


@pytest.mark.parametrize('values', [0.0, 0.5])
def test_a_residual_adapter_is_not_scaled_by_the_gammas(values):
    """It is added to the stream, outside drop-path and layer scale."""
    host = tiny.HOSTS['videomae']
    spec = dict(type='AdaptMLP', d_bottle=2, scale=0.5, source='residual')
    block = host.blocks(host.build({'adapter': spec}, init_values=values))[0]
    w, x = dict(block.mlp.deltas['adapter'].named_parameters()), sample()
    scaled = [getattr(block, g) if values else 1 for g in ('gamma_1', 'gamma_2')]
    x = x + scaled[0] * block.attn(block.norm1(x))
    added = (x @ w['down.weight'].T + w['down.bias']).relu() @ w['up.weight'].T + w['up.bias']
    ours = block(sample())
    detach(block.mlp)
    torch.testing.assert_close(ours, x + scaled[1] * block.mlp(block.norm2(x)) + 0.5 * added, atol=1e-5, rtol=1e-5)
