"""ST-Adapter: by hand, on every kind of host, and what it refuses."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from video_hosts import FRAMES, HOSTS, built, first_block, silence

from vpetl_mm import build_model
from vpetl_mm.petl import STAdapter, adapt, find
from vpetl_mm.petl.grid import Grid

timm = pytest.importorskip('timm')


def of_grid(**options) -> STAdapter:
    """An adapter of width 8 on two clips of frames of 2 x 3 patches behind one token, its parameters random."""
    grid = Grid(frames=FRAMES, size=(2, 3), leading=1)
    return tiny.randomised(STAdapter(8, grid, d_bottle=4, **options))


def by_hand(delta: STAdapter, x: Tensor) -> Tensor:
    """One number at a time: x is (B T, 1 + H W, d) of frames of 2 x 3 patches."""
    down, conv, up = delta.down, delta.conv, delta.up
    clips = (x[:, 1:] @ down.weight.T + down.bias).reshape(-1, FRAMES, 2, 3, 4)
    out, (kt, kh, kw) = torch.zeros_like(clips), delta.kernel
    for t, i, j in np.ndindex(FRAMES, 2, 3):
        total = conv.bias.expand(len(clips), 4).clone()
        for a, b, c in np.ndindex(kt, kh, kw):
            s, k, m = t + a - kt // 2, i + b - kh // 2, j + c - kw // 2
            if 0 <= s < FRAMES and 0 <= k < 2 and 0 <= m < 3:
                total = total + conv.weight[:, 0, a, b, c] * clips[:, s, k, m]
        out[:, t, i, j] = total
    change = delta.act(out).reshape(len(x), 6, 4) @ up.weight.T + up.bias
    return torch.cat([x[:, :1], x[:, 1:] + change], dim=1)


@pytest.mark.parametrize('options', [dict(), dict(kernel=(5, 1, 1), act='GELU'), dict(kernel=(3, 3, 1), act='ReLU')])
@torch.no_grad()
def test_convolves_frames_rows_and_columns(options):
    delta, x = of_grid(**options).double(), torch.randn(2 * FRAMES, 7, 8, dtype=torch.double)
    torch.testing.assert_close(delta.before(x), by_hand(delta, x))


@torch.no_grad()
def test_frames_in_one_row_are_those_of_the_batch():
    folded = of_grid(kernel=(3, 3, 3))
    joint = of_grid(kernel=(3, 3, 3))
    joint.grid.joint = True
    x = torch.randn(2 * FRAMES, 7, 8)
    row = torch.cat([x[::FRAMES, :1], x[:, 1:].reshape(2, -1, 8)], dim=1)
    torch.testing.assert_close(joint.before(row)[:, 1:], folded.before(x)[:, 1:].reshape(2, -1, 8))


def tuned(host: str, at: str, plain: nn.Module) -> nn.Module:
    """``plain`` with an adapter in every block."""
    model = built(host, dict(st=dict(type='STAdapter', at=at, d_bottle=4, num_frames=FRAMES)))
    model.load_state_dict(plain.state_dict(), strict=False)
    return model


@pytest.mark.parametrize('host', HOSTS)
@torch.no_grad()
def test_sits_in_front_of_the_attention(host):
    plain = built(host)
    model = tuned(host, 'block', plain)
    x, before = (first_block(host, m)[1] for m in (plain, model))
    wanted = next(find(model).layout.blocks(model)).deltas['st'].before(x)
    assert (wanted - x).abs().max() > 0.01
    torch.testing.assert_close(before, wanted)


@pytest.mark.parametrize('host', HOSTS)
@torch.no_grad()
def test_sits_in_front_of_the_mlp(host):
    """Where the attention adds nothing, as in front of it; where the MLP adds nothing, behind the block."""
    plain = built(host)
    silence(plain, 'fc2')
    model, (_, _, y) = tuned(host, 'between', plain), first_block(host, plain)
    wanted = next(find(model).layout.blocks(model)).deltas['st'].before(y)
    assert (wanted - y).abs().max() > 0.01
    torch.testing.assert_close(first_block(host, model)[2], wanted)

    plain = built(host)
    silence(plain, 'proj')
    front, between = (tuned(host, at, plain) for at in ('block', 'between'))
    torch.testing.assert_close(first_block(host, between)[2], first_block(host, front)[2])


@pytest.mark.parametrize('host', HOSTS)
@torch.no_grad()
def test_lets_a_host_see_the_order_of_frames(host):
    images = torch.randn(2 * FRAMES, 3, 32, 32)
    backwards = images.unflatten(0, (2, FRAMES)).flip(1).flatten(0, 1)
    for deltas, sees in ((None, False), (dict(st=dict(type='STAdapter', d_bottle=4, num_frames=FRAMES)), True)):
        model = built(host, deltas)
        one, other = (HOSTS[host].pooled(model, x).unflatten(0, (2, FRAMES)).mean(1) for x in (images, backwards))
        assert torch.allclose(one, other, atol=1e-5) != sees


@pytest.mark.parametrize(
    ('at', 'kernel', 'count'),
    [(('between',), (3, 1, 1), 7_110_144), (('block', 'between'), (3, 1, 1), 14_220_288)],
)
def test_has_as_many_parameters_as_published(at, kernel, count):
    with torch.device('meta'):
        model = timm.create_model('vit_base_patch16_clip_224', num_classes=10, global_pool='avg')
        deltas = {f'st_{place}': dict(type='STAdapter', at=place, kernel=kernel, num_frames=8) for place in at}
        by = adapt(model, deltas).count()['by']
    assert sum(n for name, n in by.items() if name != 'head') == count == 592_512 * 12 * len(at)


def test_a_module_that_folds_says_how_many_frames_there_are():
    class Folding(nn.Module):
        def __init__(self):
            super().__init__()
            self.grid, self.model = Grid(), built('timm')

        def forward(self, x):
            self.grid.frames = x.shape[2] if x.ndim == 5 else None
            return self.model.forward_features(x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x)

    model = Folding()
    adapt(model, dict(st=dict(type='STAdapter', d_bottle=4)), train=[])
    tiny.randomised(model)
    clips = torch.randn(1, 3, 6, 32, 32)
    told = built('timm', dict(st=dict(type='STAdapter', d_bottle=4, num_frames=6)))
    told.load_state_dict({k.removeprefix('model.'): v for k, v in model.state_dict().items()})
    expected = told.forward_features(clips.transpose(1, 2).flatten(0, 1))
    assert torch.equal(model(clips), expected)
    with tiny.refused('STAdapter', 'images'):
        model(clips[:, :, 0])


@pytest.mark.parametrize('pool', ['token', 'avg'])
def test_says_so_where_the_last_adapter_cannot_learn(pool):
    model = timm.models.VisionTransformer(img_size=32, embed_dim=16, num_heads=2, depth=2, global_pool=pool)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        adapt(model, dict(st=dict(type='STAdapter', at='between', d_bottle=4, num_frames=2)))
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    last = model.blocks[-1].deltas['st']
    is_dead = all(p.grad is None or not p.grad.any() for p in last.parameters())
    assert is_dead == (pool == 'token') == bool(told)
    if told:
        assert f'{sum(p.numel() for p in last.parameters()):,} parameters' in str(told[0].message)
        assert '\n' not in str(told[0].message)


def test_wrong_options_are_refused():
    for kernel in ((3, 1), (2, 1, 1), 3, (3, 1, 0)):
        with tiny.refused('kernel', repr(kernel)):
            of_grid(kernel=kernel)
    with tiny.refused('num_frames', '0'):
        of_grid(num_frames=0)
    with tiny.refused('act', 'Tanh'):
        of_grid(act='Tanh')
    with tiny.refused('STAdapter needs num_frames'):
        built('timm', dict(st=dict(type='STAdapter', d_bottle=4)))
    with tiny.refused('5 images', 'clips of 4 frames'):
        of_grid().before(torch.randn(5, 7, 8))
    with tiny.refused('height and width of 10 patches'):
        of_grid(kernel=(3, 3, 3)).before(torch.randn(FRAMES, 11, 8))


@pytest.mark.parametrize('host', ['swin3d', 'swin2d'])
def test_in_front_of_a_block_in_windows_it_is_the_same_on_the_grid_of_the_tokens(host):
    """The fourth and last frame, and the first, have one neighbour: nothing wraps around, as windows do."""
    deltas = dict(st=dict(type='STAdapter', kernel=(3, 3, 3), d_bottle=4, num_frames=2))
    model = build_model(tiny.HOSTS[host].config(deltas)).eval()
    block = next(find(model.backbone).layout.blocks(model.backbone))
    delta = tiny.randomised(block.deltas['st'])
    x = torch.randn(2, 4, 6, 10, 16) if host == 'swin3d' else torch.randn(4, 6 * 10, 16)
    arguments = () if host == 'swin3d' else ((6, 10),)
    video = x if host == 'swin3d' else x.view(2, 2, 6, 10, 16)
    changed = video + on_the_grid(delta, video)
    y = run(block, x, *arguments)
    with torch.no_grad():
        delta.up.weight.zero_()
        delta.up.bias.zero_()
    torch.testing.assert_close(y, run(block, changed.view_as(x), *arguments), rtol=1e-5, atol=1e-5)


def on_the_grid(delta: STAdapter, video: Tensor) -> Tensor:
    """up(conv(down(h))) of clips, (B, T, H, W, d), one sum over 27 shifted copies."""
    h = video @ delta.down.weight.t() + delta.down.bias
    _, frames, rows, columns, _ = h.shape
    padded = torch.nn.functional.pad(h, (0, 0, 1, 1, 1, 1, 1, 1))
    total = delta.conv.bias.clone()
    for t, i, j in product(range(3), repeat=3):
        part = padded[:, t : t + frames, i : i + rows, j : j + columns]
        total = total + part * delta.conv.weight[:, 0, t, i, j]
    return total @ delta.up.weight.t() + delta.up.bias


def run(block: nn.Module, x: Tensor, *arguments: object) -> Tensor:
    """The output of a block; Video Swin's wants its mask, which a block without a shift ignores."""
    return block(x, *(arguments or (None,))).detach()


def test_hiera_is_refused():
    model = timm.create_model('hiera_tiny_224', num_classes=2, pretrained=False)
    with tiny.refused('STAdapter', 'in another order'):
        adapt(model, dict(st=dict(type='STAdapter', num_frames=2)))


def test_tokens_behind_the_patches_are_refused():
    deltas = dict(prompt=dict(type='Prompt', num_tokens=1, deep=False), st=dict(type='STAdapter', num_frames=2))
    for order in (deltas, dict(reversed(deltas.items()))):
        with tiny.refused('STAdapter', 'for patches'):
            build_model(tiny.HOSTS['vit'].config(order))
