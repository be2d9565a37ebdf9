"""ViT weights in their authors' naming: written down here key by key, and loaded through ``base``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import HOSTS, Shapes, linear
from torch import Tensor

from vpetl_mm import UserError, build_model

D, HIDDEN, DEPTH = 16, 64, 2
StateDict = dict[str, Tensor]


def draw(shapes: Shapes) -> StateDict:
    generator = torch.Generator().manual_seed(0)
    return {k: torch.randn(s, generator=generator) for k, s in shapes.items()}


def norm(name: str) -> Shapes:
    return {f'{name}.weight': (D,), f'{name}.bias': (D,)}


def timm(
    *, separate: bool = False, bias: bool = True, scale: bool = False, pos: int = 5, final: str = 'norm'
) -> Shapes:
    """An image ViT of 2x2 patches as timm names it; AdaptFormer's has q, k, v and the MLP's layers apart."""
    shapes: Shapes = {'cls_token': (1, 1, D), 'pos_embed': (1, pos, D)}
    shapes |= {'patch_embed.proj.weight': (D, 3, 8, 8), 'patch_embed.proj.bias': (D,), **norm(final)}
    mlp = '' if separate else 'mlp.'
    for n in range(DEPTH):
        b = f'blocks.{n}'
        shapes |= norm(f'{b}.norm1') | norm(f'{b}.norm2') | linear(f'{b}.attn.proj', D, D)
        shapes |= linear(f'{b}.{mlp}fc1', HIDDEN, D) | linear(f'{b}.{mlp}fc2', D, HIDDEN)
        if separate:
            for slot in 'qkv':
                shapes |= linear(f'{b}.attn.{slot}_proj', D, D, bias)
        else:
            shapes |= linear(f'{b}.attn.qkv', 3 * D, D, bias)
        if scale:
            shapes |= {f'{b}.ls1.gamma': (D,), f'{b}.ls2.gamma': (D,)}
    return shapes


HEAD = linear('head', 1000, D)
DECODER = {
    'mask_token': (1, 1, 8),
    'decoder_pos_embed': (1, 5, 8),
    **linear('decoder_embed', 8, D),
    **linear('decoder_blocks.0.attn.qkv', 24, 8),
    **linear('decoder_blocks.0.mlp.fc1', 32, 8),
    'decoder_norm.weight': (8,),
    **linear('decoder_pred', 192, 8),
}
IMAGE: dict[str, tuple[dict, dict]] = {  # the file and the backbone's options
    'fused': (timm() | HEAD, {}),
    'separate': (timm(separate=True) | HEAD, {}),
    'mae': (timm() | DECODER, {}),
    'miil': (timm(bias=False) | HEAD, dict(qkv_bias=False)),
    'miil_separate': (timm(bias=False, separate=True), dict(qkv_bias=False)),
    'dinov2': (timm(scale=True) | {'mask_token': (1, D)}, dict(layer_scale_init_value=1e-5)),
    'pooled': (timm(final='fc_norm') | HEAD, dict(out_type='avg_featmap', final_norm=False)),
    'pre_logits': (timm() | linear('pre_logits.fc', D, D) | linear('head_dist', 10, D), {}),
}


def loaded(host: str, file, convert: str, state: dict, **options) -> StateDict:
    """What the backbone holds behind ``build_model(..., init_weights=True)``, deltas in place."""
    torch.save(state, file)
    deltas = dict(patt=dict(type='PATT', d_bottle=2), lora=dict(type='LoRA', at='fc1', rank=1))
    base = dict(file=str(file), convert=convert)
    model = build_model(HOSTS[host].config(deltas, base=base, **options), init_weights=True)
    return {k: v for k, v in model.backbone.state_dict().items() if '.deltas.' not in k}


def expected_image(state: StateDict, name: str) -> Tensor:
    """The tensor of the file that ``name`` of mmpretrain's backbone must hold."""
    for ours, theirs in (
        ('patch_embed.projection', 'patch_embed.proj'),
        ('ffn.layers.0.0', 'mlp.fc1'),
        ('ffn.layers.1', 'mlp.fc2'),
        ('attn.gamma1.weight', 'ls1.gamma'),
        ('ffn.gamma2.weight', 'ls2.gamma'),
    ):
        name = name.replace(ours, theirs)
    if name.startswith('layers.'):
        name = name.replace('layers.', 'blocks.', 1).replace('.ln', '.norm')
    elif name.startswith('ln'):
        name = ('fc_norm' if 'fc_norm.weight' in state else 'norm') + name[3:]
    return theirs_of(state, name)


def theirs_of(state: StateDict, name: str) -> Tensor:
    if name in state:
        return state[name]
    if name.replace('mlp.fc', 'fc') in state:
        return state[name.replace('mlp.fc', 'fc')]
    return torch.cat([state[name.replace('.qkv.', f'.{slot}_proj.')] for slot in 'qkv'])


@pytest.mark.parametrize(('shapes', 'options'), IMAGE.values(), ids=IMAGE)
def test_image_vits(tmp_path, shapes, options):
    state = draw(shapes)
    name = 'vit_layerscale' if 'layer_scale_init_value' in options else 'vit'
    ours = loaded(name, tmp_path / 'w.pth', 'timm_vit', state, **options)
    assert len(ours) > 20
    for key, value in ours.items():
        assert torch.equal(value, expected_image(state, key)), key


@pytest.mark.parametrize('side', [1, 3, 4])
def test_a_position_embedding_of_another_size_is_resized(tmp_path, side):
    state = draw(timm(pos=1 + side * side))
    ours = loaded('vit', tmp_path / 'w.pth', 'timm_vit', state)['pos_embed']
    token, patches = state['pos_embed'][:, :1], state['pos_embed'][:, 1:]
    plane = patches.reshape(1, side, side, D).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, (2, 2), mode='bicubic', align_corners=False)
    torch.testing.assert_close(ours, torch.cat([token, plane.permute(0, 2, 3, 1).flatten(1, 2)], 1))


def refusal(tmp_path, convert: str, state: StateDict, host: str = 'vit', **options) -> str:
    with pytest.raises(UserError, match=r'w\.pth') as error:
        loaded(host, tmp_path / 'w.pth', convert, state, **options)
    return str(error.value)


def test_what_does_not_fit_is_said(tmp_path):
    full = draw(timm())
    lacks = {k: v for k, v in full.items() if k != 'blocks.1.mlp.fc1.weight'}
    assert 'layers.1.ffn.layers.0.0.weight' in refusal(tmp_path, 'timm_vit', lacks)
    assert 'blocks.2.norm1' in refusal(tmp_path, 'timm_vit', full | draw(norm('blocks.2.norm1')))
    assert 'dist_token' in refusal(tmp_path, 'timm_vit', full | draw({'dist_token': (1, 1, D)}))
    assert 'qkv.bias' in refusal(tmp_path, 'timm_vit', draw(timm(bias=False)))
    assert 'qkv.bias' in refusal(tmp_path, 'timm_vit', full, qkv_bias=False)
    assert 'gamma' in refusal(tmp_path, 'timm_vit', draw(timm(scale=True)))
    assert 'gamma' in refusal(tmp_path, 'timm_vit', full, host='vit_layerscale')


@pytest.mark.parametrize('pos', [4, 6, 8])
def test_a_position_embedding_of_no_square_is_said(tmp_path, pos):
    message = refusal(tmp_path, 'timm_vit', draw(timm(pos=pos)))
    assert 'pos_embed' in message and str(pos) in message


@pytest.mark.parametrize('slot', 'qkv')
def test_a_missing_projection_is_said(tmp_path, slot):
    """Two of three make no qkv."""
    state = draw(timm(separate=True))
    del state[f'blocks.0.attn.{slot}_proj.weight']
    assert 'layers.0.attn.qkv.weight' in refusal(tmp_path, 'timm_vit', state)


def test_a_file_without_weights_of_a_backbone_is_refused(tmp_path):
    refusal(tmp_path, 'timm_vit', draw(HEAD))
    refusal(tmp_path, 'videomae', draw(timm()), host='videomae')
