"""The place table's entries, against names written down by hand."""

from __future__ import annotations

import pytest
import tiny
from mmaction.models.backbones import SwinTransformer3D
from torch import nn

from vpetl_mm import build_model
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
    'block': ('', 1, 1, ''),
    'between': ('', 1, 1, ''),
    'norm1': ('norm1', 1, 1, ''),
    'norm2': ('norm2', 1, 1, ''),
}
AT_THE_ENDS = {'patch_embed', 'last_norm'}


@pytest.mark.parametrize('place', PLACES)
def test_sites(place):
    backbone = swin()
    below, d_in, d_out, slots = PLACES[place]
    expected = [
        (f'{block}.{below}'.strip('.'), d_in * width, d_out * width, slots)
        for block, width in zip(BLOCKS, (16, 16, 32), strict=True)
    ]
    sites = list(layout_of(backbone).sites(backbone, place))
    assert [(s.name, s.in_dim, s.out_dim, s.slots) for s in sites] == expected
    assert all(s.host is backbone.get_submodule(s.name) and s.place == place for s in sites)


def test_there_are_no_other_places_or_blocks():
    backbone = swin()
    assert set(layout_of(backbone).places) == {*PLACES, *AT_THE_ENDS}
    assert list(layout_of(backbone).blocks(backbone)) == [backbone.get_submodule(b) for b in BLOCKS]


def test_a_subclass_has_its_parents_entry():
    class OwnSwin(SwinTransformer3D):
        pass

    own = OwnSwin(arch=dict(embed_dims=16, depths=[1], num_heads=[2]), pretrained2d=False, out_indices=(0,))
    assert layout_of(own) is LAYOUTS['mmaction.SwinTransformer3D']


# The other hosts: the blocks, and the norm in front of their attention; places below a block are tiny's

HOSTS = {
    'videomae': (('blocks.0', 'blocks.1'), 'norm1'),
    'vit': (('layers.0', 'layers.1'), 'ln1'),
    'swin2d': (('stages.0.blocks.0', 'stages.0.blocks.1'), 'norm1'),
}
ENDS = {
    'videomae': dict(patch_embed='patch_embed.projection', last_norm='fc_norm'),
    'vit': dict(patch_embed='patch_embed.projection', last_norm='ln1'),
    'swin2d': dict(patch_embed='patch_embed.projection', last_norm='norm0'),
}


@pytest.mark.parametrize('adapted', [False, True], ids=['plain', 'with_deltas'])
@pytest.mark.parametrize('name', HOSTS)
def test_sites_of_the_other_hosts(name, adapted):
    """Deltas that are there already are no host's linear layers."""
    deltas = dict(patt=dict(type='PATT', d_bottle=3), adapter=dict(type='AdaptMLP', d_bottle=5)) if adapted else {}
    backbone = build_model(tiny.HOSTS[name].config(deltas)).backbone
    layout, (blocks, norm) = layout_of(backbone), HOSTS[name]
    assert list(layout.blocks(backbone)) == [backbone.get_submodule(b) for b in blocks]
    assert not list(layout.sites(backbone, 'nowhere'))
    assert set(layout.places) == {*tiny.HOSTS[name].below, *PLACES, *AT_THE_ENDS}
    for place, (layer,) in zip(AT_THE_ENDS, (layout.sites(backbone, p) for p in AT_THE_ENDS), strict=True):
        assert (layer.name, layer.out_dim) == (ENDS[name][place], 16 if place == 'patch_embed' else layer.in_dim)
    for place, below in tiny.HOSTS[name].below.items():
        sites = list(layout.sites(backbone, place))
        _, d_in, d_out, slots = PLACES.get(place, ('', 1, 1, ''))
        expected = [(f'{block}.{below}'.strip('.'), 16 * d_in, 16 * d_out, slots) for block in blocks]
        assert [(s.name, s.in_dim, s.out_dim, s.slots) for s in sites] == expected
        for site, block in zip(sites, blocks, strict=True):
            assert site.host is backbone.get_submodule(site.name)
            assert site.norm is backbone.get_submodule(f'{block}.{norm}')


def in_blocks(blocks: tuple[str, ...], *names: str) -> set[str]:
    return {f'{block}.{name}' for block in blocks for name in names}


def both(name: str) -> tuple[str, str]:
    return f'{name}.weight', f'{name}.bias'


VIDEO, VIT, STAGE = (blocks for blocks, _ in HOSTS.values())
MATRICES = {'attn.qkv': 'qkv', 'attn.proj': 'proj', 'mlp.fc1': 'fc1', 'mlp.fc2': 'fc2'}
GROUPS = {
    name: {group: in_blocks(blocks, *both(tiny.HOSTS[name].below[place])) for group, place in MATRICES.items()}
    for name, (blocks, _) in HOSTS.items()
}
GROUPS['videomae'] |= {
    'norm': in_blocks(VIDEO, *both('norm1'), *both('norm2')) | {*both('fc_norm')},
    'norm1': in_blocks(VIDEO, *both('norm1')),
    'norm2': in_blocks(VIDEO, *both('norm2')),
    'fc_norm': {*both('fc_norm')},
    'attn.qkv': in_blocks(VIDEO, 'attn.qkv.weight', 'attn.q_bias', 'attn.v_bias'),
    'patch_embed': {*both('patch_embed.projection')},
    'bias': {'patch_embed.projection.bias', 'fc_norm.bias'}
    | in_blocks(VIDEO, 'norm1.bias', 'norm2.bias', 'attn.q_bias', 'attn.v_bias', 'attn.proj.bias')
    | in_blocks(VIDEO, 'mlp.layers.0.0.bias', 'mlp.layers.1.bias'),
}
GROUPS['vit'] |= {
    'norm': in_blocks(VIT, *both('ln1'), *both('ln2')) | {*both('ln1')},
    'norm1': in_blocks(VIT, *both('ln1')),
    'norm2': in_blocks(VIT, *both('ln2')),
    'patch_embed': {*both('patch_embed.projection')},
    'bias': {'patch_embed.projection.bias', 'ln1.bias'}
    | in_blocks(VIT, 'ln1.bias', 'ln2.bias', 'attn.qkv.bias', 'attn.proj.bias')
    | in_blocks(VIT, 'ffn.layers.0.0.bias', 'ffn.layers.1.bias'),
}
GROUPS['swin2d'] |= {
    'norm': in_blocks(STAGE, *both('norm1'), *both('norm2')) | {*both('norm0'), *both('patch_embed.norm')},
    'norm1': in_blocks(STAGE, *both('norm1')),
    'norm2': in_blocks(STAGE, *both('norm2')),
    'attn.rpb': in_blocks(STAGE, 'attn.w_msa.relative_position_bias_table'),
    'patch_embed': {*both('patch_embed.projection'), *both('patch_embed.norm')},
}
TRAIN = [(host, group) for host, groups in GROUPS.items() for group in groups]


@pytest.mark.parametrize(('name', 'group'), TRAIN, ids=lambda v: v)
@pytest.mark.parametrize('adapted', [False, True], ids=['plain', 'with_deltas'])
def test_train_names_of_the_other_hosts(name, group, adapted):
    """What stands in ``train``, and no delta's own biases by name."""
    deltas = dict(adapter=dict(type='AdaptMLP', d_bottle=2)) if adapted else {}
    trained = tiny.trainable(build_model(tiny.HOSTS[name].config(deltas, [group])))
    own = {n for n in trained if '.deltas.' not in n}
    assert own == {f'backbone.{n}' for n in GROUPS[name][group]}
    assert (trained - own != set()) == adapted


@pytest.mark.parametrize('name', ['videomae', 'vit'])
def test_what_a_host_has_not_is_said(name):
    with tiny.refused('attn.rpb', 'attn.qkv'):
        build_model(tiny.HOSTS[name].config(train=['attn.rpb']))


def test_layer_scale_and_position_embedding_are_in_no_group_but_all():
    model = build_model(tiny.HOSTS['vit_layerscale'].config(train=[*GROUPS['vit']]))
    left = {n.removeprefix('backbone.') for n, p in model.named_parameters() if not p.requires_grad}
    scales = in_blocks(VIT, 'attn.gamma1.weight', 'ffn.gamma2.weight')
    assert left == scales | {'cls_token', 'pos_embed', 'head.fc.weight', 'head.fc.bias'}
    model = build_model(tiny.HOSTS['vit_layerscale'].config(train=['all']))
    assert tiny.trainable(model) == {n for n, _ in model.named_parameters()}
