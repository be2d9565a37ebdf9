"""AIM: its parts by hand on every kind of host, and what it refuses."""

from __future__ import annotations

from functools import partial

import pytest
import tiny
import torch
from torch import nn
from video_hosts import FRAMES, HOSTS, built, first_block, images

from vpetl_mm import build_model
from vpetl_mm.petl import FrameEmbedding, adapt, find
from vpetl_mm.petl.grid import Grid

timm = pytest.importorskip('timm')
TIME = dict(type='AIMTime', d_bottle=4, num_frames=FRAMES)
FLAT = [name for name, host in HOSTS.items() if not host.rotary]


def aim(num_frames: int, d_bottle: int, num_tadapter: int = 1, scale: float = 0.5, **options) -> dict:
    """The deltas of AIM's blocks, as in configs/_base_/methods/aim.py."""
    return dict(
        time=dict(type='AIMTime', num_tadapter=num_tadapter, num_frames=num_frames, d_bottle=d_bottle, **options),
        space=dict(type='LinearAdapter', at='proj', d_bottle=d_bottle),
        joint=dict(type='AdaptMLP', act='GELU', d_bottle=d_bottle, scale=scale, **options),
    )


@pytest.mark.parametrize('host', FLAT)
@torch.no_grad()
def test_attends_over_time_in_front_of_a_block(host):
    """With the host's own attention, called for one place of one clip at a time."""
    model = built(host, dict(time=dict(TIME, num_tadapter=2)))
    where = find(model)
    block = next(where.layout.blocks(model))
    x, before, _ = first_block(host, model)

    delta, norm = block.deltas['time'], getattr(block, where.layout.norm12[0])
    attention = block.get_submodule(where.layout.attention)
    call = partial(attention, need_weights=False) if isinstance(attention, nn.MultiheadAttention) else attention
    wanted = x.clone()
    for clip in x.split(FRAMES):
        at = next(i for i in range(0, len(x), FRAMES) if torch.equal(x[i : i + FRAMES], clip))
        for place in range(x.shape[1]):
            z = norm(clip[None, :, place])
            z = z + delta.inward.up(nn.functional.gelu(delta.inward.down(z)))
            y = call(z, z, z) if isinstance(attention, nn.MultiheadAttention) else call(z)
            y = y[0] if isinstance(y, tuple) else y
            wanted[at : at + FRAMES, place] += delta.outward.up(nn.functional.gelu(delta.outward.down(y[0])))
    assert (wanted - x).abs().max() > 0.01
    torch.testing.assert_close(before, wanted)


@pytest.mark.parametrize('host', FLAT)
@torch.no_grad()
def test_the_attention_over_time_is_the_plain_one(host):
    """Other deltas on the attention act on it in space alone, and act there still."""
    deltas = dict(
        time=TIME,
        space=dict(type='LinearAdapter', at='proj', d_bottle=4),
        lora=dict(type='LoRA', at='qkv', rank=2),
        patt=dict(type='PATT', d_bottle=4, mode='concat'),
        prefix=dict(type='Prefix', num_tokens=2, d_middle=2),
    )
    model, alone = built(host, deltas), built(host, dict(time=TIME))
    alone.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(first_block(host, model)[1], first_block(host, alone)[1])
    assert not torch.allclose(first_block(host, model)[2], first_block(host, alone)[2], atol=1e-2)


@torch.no_grad()
def test_the_attention_over_time_is_the_plain_one_in_a_config():
    deltas = dict(time=dict(TIME, num_frames=2), prefix=dict(type='Prefix', num_tokens=2, d_middle=2))
    host = tiny.HOSTS['vit']
    model = host.build(deltas, depth=1)
    delta, attention = model.backbone.layers[0].deltas['time'], model.backbone.layers[0].attn
    x = torch.randn(2, 5, 16)
    bare = host.build(dict(time=dict(TIME, num_frames=2)), depth=1)
    bare.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(delta.before(x), bare.backbone.layers[0].deltas['time'].before(x))
    assert not torch.allclose(attention(x), bare.backbone.layers[0].attn(x), atol=1e-2)


def test_deltas_act_again_after_an_error():
    model = built('timm', dict(time=TIME, space=dict(type='LinearAdapter', at='proj', d_bottle=4)))
    expected = model(images())
    fails = model.blocks[0].attn.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(images())
    fails.remove()
    assert torch.equal(model(images()), expected)


@pytest.mark.parametrize('host', FLAT)
@torch.no_grad()
def test_lets_a_host_see_the_order_of_frames(host):
    """Attention over time alone does not, the embedding of frames does."""
    backwards = images().unflatten(0, (2, FRAMES)).flip(1).flatten(0, 1)
    for deltas, sees in (
        (dict(time=TIME), False),
        (dict(e=dict(type='FrameEmbedding', num_frames=4), time=TIME), True),
    ):
        model = built(host, deltas)
        one, other = (HOSTS[host].pooled(model, x).unflatten(0, (2, FRAMES)).mean(1) for x in (images(), backwards))
        assert torch.allclose(one, other, atol=1e-4) != sees


@pytest.mark.parametrize(('num_tadapter', 'count'), [(1, 10_651_392), (2, 14_201_856)])
def test_has_as_many_parameters_as_published(num_tadapter, count):
    with torch.device('meta'):
        model = timm.create_model('vit_base_patch16_clip_224', num_classes=10)
        deltas = dict(frames=dict(type='FrameEmbedding', num_frames=8), **aim(8, 192, num_tadapter))
        by = adapt(model, deltas).count()['by']
    assert by['time'] + by['space'] + by['joint'] == count == 295_872 * 12 * (2 + num_tadapter)
    assert by['frames'] == 8 * 768


def test_the_bottleneck_is_a_quarter_of_the_width_by_default():
    model = built('timm', dict(time=dict(type='AIMTime', num_frames=FRAMES)))
    assert model.blocks[0].deltas['time'].outward.down.out_features == 4


def test_drop_path_grows_with_the_depth_and_acts_in_training_alone():
    deltas = {n: d for n, d in aim(FRAMES, 4, drop_path=0.6).items() if n != 'space'}
    model = built('timm', deltas)
    for block, p in zip(model.blocks, (0, 0.6), strict=True):
        assert (block.deltas['time'].drop.p, block.mlp.deltas['joint'].drop.p) == (p, p)
    delta, joint, x = model.blocks[1].deltas['time'], model.blocks[1].mlp.deltas['joint'], torch.randn(400, 18, 16)
    whole, beside = delta.before(x) - x, joint(x).value()
    model.train()
    for part, all_of_it in ((delta.before(x) - x, whole), (joint(x), beside)):
        kept = part.flatten(1).any(1)
        assert 0.3 < kept.float().mean() < 0.5
        torch.testing.assert_close(part[kept], all_of_it[kept] / 0.4, atol=1e-4, rtol=1e-4)


def test_the_embedding_knows_its_frames():
    frames = FrameEmbedding(8, Grid(), num_frames=3)
    assert not frames.table.any()
    tiny.randomised(frames)
    x = torch.randn(6, 5, 8)
    wanted = x.clone()
    for image in range(6):
        wanted[image] += frames.table[image % 3]
    torch.testing.assert_close(frames.before(x), wanted)
    frames.grid.frames = 6
    with tiny.refused('num_frames=3', '6 frames'):
        frames.before(x)


@pytest.mark.parametrize('host', ['eva', 'hf_dinov3'])
def test_rotary_positions_are_refused(host):
    with tiny.refused('AIMTime', 'rotary positions'):
        built(host, dict(time=TIME))


def test_hosts_without_frames_in_the_batch_are_refused():
    with tiny.refused('AIMTime', 'attends to those of a clip already'):
        build_model(tiny.HOSTS['videomae'].config(dict(time=dict(type='AIMTime'))))
    with tiny.refused('FrameEmbedding', 'one row'):
        build_model(tiny.HOSTS['videomae'].config(dict(frames=dict(type='FrameEmbedding', num_frames=2))))
    with tiny.refused('AIMTime', 'windows'):
        build_model(tiny.HOSTS['swin2d'].config(dict(time=TIME)))
    with tiny.refused('AIMTime needs num_frames'):
        build_model(tiny.HOSTS['vit'].config(dict(time=dict(type='AIMTime'))))


def test_wrong_options_are_refused():
    for option, value in dict(num_tadapter=3, d_bottle=0, drop_path=1.0, num_frames=0).items():
        with tiny.refused(option, str(value)):
            built('timm', dict(time=dict(TIME, **{option: value})))
