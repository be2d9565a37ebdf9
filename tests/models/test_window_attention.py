"""Our window attention, as it is and with what it keeps, against the host libraries' own and against plain torch."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from mmaction.models.backbones import SwinTransformer3D
from mmaction.models.backbones.swin import WindowAttention3D
from steps import near, same, step
from torch import Tensor, nn
from windows import KINDS, WINDOWS, close, freeze_table, mask_of, pair, size, tokens

from vpetl_mm import build_model
from vpetl_mm.fast.window_attention import CachedWindowAttention3D
from vpetl_mm.models.window_attention import FastWindowAttention3D

EACH = pytest.mark.parametrize('cls', KINDS)
FROZEN = pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])


def bias_by_hand(column: Tensor, window: tuple[int, ...]) -> Tensor:
    """B[i, j] from the offset of token j to token i in each direction."""
    table = column.view(*(2 * w - 1 for w in window))
    places = list(itertools.product(*map(range, window)))
    rows = [
        [table[tuple(a - b + w - 1 for a, b, w in zip(i, j, window, strict=True))] for j in places] for i in places
    ]
    return torch.stack([torch.stack(row) for row in rows])


@FROZEN
@EACH
@pytest.mark.parametrize('n_w', [None, 1, 3])
def test_is_the_formula(n_w, cls, frozen):
    _, ours = pair(cls)
    if frozen:
        freeze_table(ours)
    mask, x = mask_of(ours, n_w), tokens(ours, 2 * (n_w or 3))
    window = next(w for host, w in WINDOWS.items() if issubclass(cls, host))
    columns = ours.relative_position_bias_table.unbind(1)
    bias = torch.stack([bias_by_hand(column, window) for column in columns])

    def with_bias(_: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        return q, k, v, bias + scores

    twin = pair(cls)[1]
    nn.init.zeros_(twin.relative_position_bias_table)
    expected = tiny.attention_by_hand(twin, x, with_bias, mask)
    for _ in range(2):  # the second time with what was kept
        close(ours(x, mask), expected)


@FROZEN
@EACH
@pytest.mark.parametrize('options', [dict(), dict(qkv_bias=False), dict(qk_scale=0.1)], ids=str)
@pytest.mark.parametrize(('n_w', 'batch'), [(None, 1), (None, 3), (1, 1), (4, 1), (4, 3)])
def test_equals_the_host_in_outputs_and_gradients(n_w, batch, options, cls, frozen):
    host, ours = pair(cls, **options)
    if frozen:
        freeze_table(host, ours)
    args = tokens(host, batch * (n_w or 1)), mask_of(host, n_w)
    theirs = step(host, *args)
    same(step(ours, *args), theirs)
    assert (theirs['relative_position_bias_table'] is None) == frozen
    assert list(ours.state_dict()) == list(host.state_dict())


@EACH
@pytest.mark.parametrize('option', ['attn_drop', 'proj_drop'])
def test_dropout_acts_in_training_alone(option, cls):
    host, ours = pair(cls, **{option: 0.5})
    assert (ours.attn_drop.p, ours.proj_drop.p) == (host.attn_drop.p, host.proj_drop.p)
    x = tokens(ours, 4)
    assert not torch.equal(ours.train()(x), ours(x))
    close(ours.eval()(x), host.eval()(x))


@pytest.mark.parametrize('cls', KINDS[::2])
def test_smaller_windows_take_the_first_tokens_bias_as_the_host_does(cls):
    host, ours = pair(cls)
    freeze_table(host, ours)
    for n in (size(host), 8, 1, size(host)):  # also after another size
        close(ours(tokens(host, 2, n)), host(tokens(host, 2, n)))


@FROZEN
@EACH
def test_under_autocast_and_after_it(cls, frozen):
    host, ours = pair(cls)
    if frozen:
        freeze_table(host, ours)
    args = tokens(host, 4), mask_of(host, 2)
    exact = step(host, *args)
    near(step(ours, *args, amp=True), step(host, *args, amp=True), exact, 0.02)
    same(step(ours, *args), exact)


# The whole backbone

# name: (clip, window): tokens are half the frames and a quarter of height and width
SIZES = {
    'fits': ((4, 32, 32), (2, 4, 4)),
    'padded': ((6, 24, 44), (2, 4, 4)),
    'shifted_in_time': ((12, 32, 16), (4, 4, 4)),
    'window_larger_than_input': ((4, 16, 16), (8, 7, 7)),
    'larger_in_time_alone': ((4, 40, 40), (8, 4, 4)),
    'the_papers_window': ((8, 56, 56), (4, 7, 7)),
}


@pytest.mark.parametrize('fast', [False, True], ids=['plain', 'fast'])
@pytest.mark.parametrize('train', [['head'], ['all']], ids=['frozen_table', 'trained_table'])
@pytest.mark.parametrize(('clip', 'window'), SIZES.values(), ids=SIZES.keys())
def test_backbone_equals_the_hosts(clip, window, train, fast):
    deltas, steps = dict(patt=dict(type='PATT', d_bottle=2)), []
    for attention in (tiny.HOST, tiny.FAST):
        config = tiny.config(deltas, train, attention=attention, depths=(2, 2), window_size=window)
        config['model']['petl']['fast'] = fast and attention is not tiny.HOST
        model = tiny.randomised(build_model(config), std=0.2)
        steps.append(step(model, tiny.clip(3, clip)))
    same(*reversed(steps))


def test_fast_is_the_default_and_none_is_the_hosts():
    cfg = tiny.config()
    del cfg['model']['petl']['attention']
    plain = {**cfg['model'], 'petl': {**cfg['model']['petl'], 'fast': False}}
    configs = (cfg, dict(cfg, model=plain), tiny.config(attention=None))
    kinds = [type(m.backbone.layers[0].blocks[0].attn) for m in map(build_model, configs)]
    assert kinds == [CachedWindowAttention3D, FastWindowAttention3D, WindowAttention3D]


@pytest.mark.parametrize('attention', [tiny.HOST, tiny.FAST], ids=['host', 'fast'])
def test_a_plain_swins_checkpoint_loads(attention):
    arch = dict(embed_dims=16, depths=[2], num_heads=[2])
    swin = SwinTransformer3D(arch, pretrained2d=False, window_size=(2, 4, 4), drop_path_rate=0.0, out_indices=(0,))
    tiny.randomised(swin).eval()
    model = build_model(tiny.config(attention=attention)).eval()
    model.backbone.load_state_dict(swin.state_dict())
    close(model.backbone(tiny.clip()), swin(tiny.clip()))


@FROZEN
@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
def test_the_table_is_trained_beside_a_prefix(name, frozen):
    host = tiny.HOSTS[name]
    prefix = dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=2))
    model = host.build(prefix, ['head'] if frozen else ['attn.rpb'])
    step(model, host.sample())
    grads = [host.part(b, 'attn').relative_position_bias_table.grad for b in host.blocks(model)]
    assert all((g is None) == frozen for g in grads)
    assert frozen or all(g.any() for g in grads)


@pytest.mark.parametrize('train', [['head'], ['all']], ids=['frozen_table', 'trained_table'])
@pytest.mark.parametrize(('side', 'window'), [(24, 3), (32, 3), (32, 4), (44, 5)], ids=str)
def test_flat_backbone_equals_the_hosts(side, window, train):
    """Two stages, shifted windows, padded and not."""
    arch = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 4])
    options = dict(arch=arch, out_indices=(1,), window_size=window, img_size=side, pad_small_map=True)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    deltas, outputs = {'patt': dict(type='PATT', d_bottle=2)}, []
    for petl in (dict(attention=None, fast=False), dict(fast=False), {}):
        model = tiny.HOSTS['swin2d'].build(deltas, train, petl=petl, head=dict(in_channels=32), **options)
        outputs.append(tiny.features(model, x))
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])
