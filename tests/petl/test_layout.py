"""The place table's entry for mmaction2's Swin, against names written down by hand."""

from __future__ import annotations

import pytest
from mmaction.models.backbones import SwinTransformer3D
from torch import nn

from vpetl_mm import UserError
from vpetl_mm.petl import LAYOUTS, layout_of


def swin(**options) -> nn.Module:
    arch = dict(embed_dims=16, depths=[2, 1], num_heads=[2, 4])
    options = dict(pretrained2d=False, window_size=(2, 4, 4), out_indices=(1,), **options)
    return SwinTransformer3D(arch=arch, **options)


BLOCKS = ['layers.0.blocks.0', 'layers.0.blocks.1', 'layers.1.blocks.0']
# place -> (name below the block, input and output width for a block width of 1, slots)
PLACES = {
    'qkv': ('attn.qkv', 1, 3, 'qkv'),
    'proj': ('attn.proj', 1, 1, ''),
    'mlp': ('mlp', 1, 1, ''),
    'fc1': ('mlp.fc1', 1, 4, ''),
    'fc2': ('mlp.fc2', 4, 1, ''),
    'attn': ('attn', 1, 1, ''),
}


@pytest.mark.parametrize('place', PLACES)
def test_sites(place):
    backbone = swin()
    below, d_in, d_out, slots = PLACES[place]
    expected = [
        (f'{block}.{below}', d_in * width, d_out * width, slots)
        for block, width in zip(BLOCKS, (16, 16, 32), strict=True)
    ]
    sites = list(layout_of(backbone).sites(backbone, place))
    assert [(s.name, s.in_dim, s.out_dim, s.slots) for s in sites] == expected
    assert all(s.host is backbone.get_submodule(s.name) and s.place == place for s in sites)


def test_there_are_no_other_places():
    assert set(LAYOUTS['mmaction.SwinTransformer3D'].places) == set(PLACES)


def test_blocks():
    backbone = swin()
    blocks = list(layout_of(backbone).blocks(backbone))
    assert blocks == [backbone.get_submodule(b) for b in BLOCKS]


def test_a_subclass_has_its_parents_entry():
    class OwnSwin(SwinTransformer3D):
        pass

    own = OwnSwin(arch=dict(embed_dims=16, depths=[1], num_heads=[2]), pretrained2d=False, out_indices=(0,))
    assert layout_of(own) is LAYOUTS['mmaction.SwinTransformer3D']


def test_another_backbone_is_refused_with_what_there_is():
    with pytest.raises(UserError) as error:
        layout_of(nn.Linear(2, 2))
    assert 'Linear' in str(error.value)
    assert 'SwinTransformer3D' in str(error.value)
