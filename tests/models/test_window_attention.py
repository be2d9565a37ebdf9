"""The fast attention against the host library's own and against plain torch."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
from mmaction.models.backbones.swin import WindowAttention3D
from mmpretrain.models.utils import WindowMSA
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.models.window_attention import FastWindowAttention3D, FastWindowMSA
from vpetl_mm.petl import PATT
from vpetl_mm.petl.host import attach, detach

WINDOW, DIM, HEADS = (2, 3, 3), 12, 3
N = 2 * 3 * 3


def pair(seed: int = 0, **options) -> tuple[WindowAttention3D, FastWindowAttention3D]:
    """The host's attention and ours, with the same weights."""
    host = tiny.randomised(WindowAttention3D(DIM, WINDOW, HEADS, **options), seed)
    fast = FastWindowAttention3D(**FastWindowAttention3D.like(host))
    fast.load_state_dict(host.state_dict())
    return host, fast


def tokens(windows: int, n: int = N, seed: int = 0) -> Tensor:
    return torch.randn(windows, n, DIM, generator=torch.Generator().manual_seed(seed))


def shift_mask(n_w: int, n: int = N, seed: int = 0) -> Tensor:
    groups = torch.randint(0, 2, (n_w, n), generator=torch.Generator().manual_seed(seed))
    return torch.where(groups[:, :, None] == groups[:, None, :], 0.0, -100.0)


def freeze_table(*attentions: nn.Module) -> None:
    for attention in attentions:
        attention.relative_position_bias_table.requires_grad_(False)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def by_hand(attention: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + B + M) v, one window and one head at a time."""
    weights = dict(attention.named_parameters())
    out = []
    for w, window in enumerate(x):
        q, k, v = (window @ weights['qkv.weight'].T + weights['qkv.bias']).chunk(3, dim=-1)
        heads = []
        for h in range(HEADS):
            part = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
            scores = q[:, part] @ k[:, part].T / (DIM // HEADS) ** 0.5
            scores = scores + bias_by_hand(weights['relative_position_bias_table'][:, h])
            if mask is not None:
                scores = scores + mask[w % len(mask)]
            heads.append(scores.softmax(-1) @ v[:, part])
        out.append(torch.cat(heads, -1) @ weights['proj.weight'].T + weights['proj.bias'])
    return torch.stack(out)


def bias_by_hand(column: Tensor) -> Tensor:
    """B[i, j] from the offset of token j to token i in time, height and width."""
    table = column.view(*(2 * w - 1 for w in WINDOW))
    places = [(t, y, x) for t in range(WINDOW[0]) for y in range(WINDOW[1]) for x in range(WINDOW[2])]
    rows = [
        [table[tuple(a - b + w - 1 for a, b, w in zip(i, j, WINDOW, strict=True))] for j in places] for i in places
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])
@pytest.mark.parametrize('n_w', [None, 1, 4], ids=lambda n: f'mask{n}')
def test_is_the_formula(n_w, frozen):
    _, fast = pair()
    if frozen:
        freeze_table(fast)
    mask = None if n_w is None else shift_mask(n_w)
    x = tokens(2 * (n_w or 3))
    for _ in range(2):  # the second time with what was kept
        close(fast(x, mask), by_hand(fast, x, mask))


@pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])
@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize(('n_w', 'batch'), [(None, 1), (None, 3), (1, 1), (4, 1), (4, 3)])
def test_equals_the_host_in_outputs_and_gradients(n_w, batch, train, frozen):
    host, fast = pair()
    if frozen:
        freeze_table(host, fast)
    mask = None if n_w is None else shift_mask(n_w)
    results = []
    for attention in (host, fast):
        attention.train(train)
        x = tokens(batch * (n_w or 1)).requires_grad_()
        y = attention(x, mask=mask)
        (y * tokens(len(x), seed=1)).sum().backward()
        results.append(dict(y=y.detach(), x=x.grad, **{n: p.grad for n, p in attention.named_parameters()}))
    theirs, ours = results
    assert (ours['relative_position_bias_table'] is None) == frozen
    for name, value in theirs.items():
        if value is not None:
            close(ours[name], value)


@pytest.mark.parametrize(
    'options', [dict(qkv_bias=False), dict(qk_scale=0.1), dict(qkv_bias=True, attn_drop=0.5, proj_drop=0.5)], ids=str
)
def test_like_takes_over_every_option(options):
    host, fast = pair(**options)
    assert (fast.qkv.bias is None) == (host.qkv.bias is None)
    assert (fast.attn_drop.p, fast.proj_drop.p) == (host.attn_drop.p, host.proj_drop.p)
    close(fast.eval()(tokens(4), shift_mask(2)), host.eval()(tokens(4), shift_mask(2)))


@pytest.mark.parametrize('option', ['attn_drop', 'proj_drop'])
def test_dropout_acts_in_training_alone(option):
    _, fast = pair(**{option: 0.5})
    x = tokens(4)
    fast.train()
    assert not torch.equal(fast(x), fast(x))
    fast.eval()
    assert torch.equal(fast(x), fast(x))


def test_smaller_windows_take_the_first_tokens_bias_as_the_host_does():
    host, fast = pair()
    freeze_table(host, fast)
    for n in (N, 8, 1, N):  # also after another size
        close(fast(tokens(2, n)), host(tokens(2, n)))


def test_has_the_hosts_keys():
    host, fast = pair()
    assert list(fast.state_dict()) == list(host.state_dict())


# What is kept while the table is frozen is never stale


def frozen_pair(n_w: int = 2) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Both attentions after a first forward, with what they saw."""
    host, fast = pair()
    freeze_table(host, fast)
    x, mask = tokens(2 * n_w), shift_mask(n_w)
    close(fast(x, mask), host(x, mask))
    return host, fast, x, mask


def test_the_bias_is_kept_while_frozen():
    _, fast, x, mask = frozen_pair()
    made = []
    make = fast._make_bias_and_mask
    fast._make_bias_and_mask = lambda *a: made.append(a) or make(*a)
    fast(x, mask)
    assert not made
    fast.relative_position_bias_table.requires_grad_(True)
    fast(x, mask)
    assert made


@pytest.mark.parametrize('assign', [False, True])
def test_after_load_state_dict(assign):
    host, fast, x, mask = frozen_pair()
    for seed in (1, 2):
        other = tiny.randomised(pair()[0], seed).state_dict()
        host.load_state_dict(other)
        fast.load_state_dict({k: v.clone() for k, v in other.items()}, assign=assign)
        freeze_table(host, fast)
        close(fast(x, mask), host(x, mask))


def test_after_writing_to_the_table():
    host, fast, x, mask = frozen_pair()
    with torch.no_grad():
        for attention in (host, fast):
            attention.relative_position_bias_table.mul_(-3)
    close(fast(x, mask), host(x, mask))


def test_after_training_the_table_and_freezing_it_again():
    host, fast, x, mask = frozen_pair()
    for attention in (host, fast):
        attention.relative_position_bias_table.requires_grad_(True)
        optimizer = torch.optim.SGD([attention.relative_position_bias_table], lr=1.0)
        attention(x, mask).square().sum().backward()
        optimizer.step()
    freeze_table(host, fast)
    close(fast(x, mask), host(x, mask))


def test_after_another_mask_of_the_same_shape():
    host, fast, x, mask = frozen_pair()
    for other in (shift_mask(2, seed=3), None, mask, shift_mask(1)):
        close(fast(x, other), host(x, other))


def test_after_double_and_back():
    host, fast, x, mask = frozen_pair()
    host.double()
    fast.double()
    torch.testing.assert_close(fast(x.double(), mask.double()), host(x.double(), mask.double()))
    host.float()
    fast.float()
    close(fast(x, mask), host(x, mask))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_after_rounding_to_half_and_back(dtype):
    """The table differs after the round trip, and its memory may be where it was."""
    for _ in range(20):
        host, fast, x, mask = frozen_pair()
        for attention in (host, fast):
            attention.to(dtype)
            attention.to(torch.float32)
        close(fast(x, mask), host(x, mask))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_in_half_precision(dtype):
    host, fast, x, mask = frozen_pair()
    exact = host(x, mask)
    errors = [(a.to(dtype)(x.to(dtype), mask.to(dtype)).float() - exact).abs().max() for a in (host, fast)]
    assert errors[1] <= 2 * errors[0] + 1e-3


@pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])
def test_under_autocast_and_after_it(frozen):
    host, fast = pair()
    if frozen:
        freeze_table(host, fast)
    x, mask = tokens(4), shift_mask(2)
    exact, errors = host(x, mask), []
    for attention in (host, fast):
        with torch.autocast('cpu', torch.bfloat16):
            errors.append((attention(x, mask).float() - exact).abs().max())
    assert errors[1] <= 2 * errors[0] + 1e-3
    close(fast(x, mask), exact)


def test_autocast_gradients():
    host, fast = pair()
    x, mask, grads = tokens(4), shift_mask(2), []
    host(x, mask).square().mean().backward()
    exact = {n: p.grad.clone() for n, p in host.named_parameters()}
    for attention in (host, fast):
        attention.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            y = attention(x, mask)
        y.float().square().mean().backward()
        grads.append({n: (p.grad - exact[n]).norm() / exact[n].norm() for n, p in attention.named_parameters()})
    for name, error in grads[1].items():
        assert error <= 2 * grads[0][name] + 0.02, name


def test_copies_do_not_carry_what_was_kept():
    host, fast, x, mask = frozen_pair()
    fresh = pickle.dumps(pair()[1])
    assert len(pickle.dumps(fast)) <= len(fresh) + 100
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        other = tiny.randomised(pair()[0], 4)
        twin.load_state_dict(other.state_dict())
        freeze_table(twin)
        close(twin(x, mask), other(x, mask))
        close(fast(x, mask), host(x, mask))


def test_training_after_inference_mode():
    host, fast, x, mask = frozen_pair()
    for attention in (host, fast):
        attention.relative_position_bias_table.mul_(0.5)  # what was kept is made again
        with torch.inference_mode():
            attention(x, mask)
        attention(x, mask).square().sum().backward()
    close(fast.qkv.weight.grad, host.qkv.weight.grad)


def test_what_is_kept_is_no_weight():
    _, fast, _, _ = frozen_pair()
    assert list(fast.state_dict()) == list(pair()[1].state_dict())
    assert not [b for n, b in fast.named_buffers() if n != 'relative_position_index']


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


def models(train: list[str], deltas: dict | None = None, **options) -> tuple[nn.Module, nn.Module]:
    host, fast = (
        build_model(tiny.config(deltas, train, attention=a, depths=(2, 2), **options)) for a in (tiny.HOST, tiny.FAST)
    )
    fast.load_state_dict(tiny.randomised(host, std=0.2).state_dict())
    return host, fast


@pytest.mark.parametrize('train', [['head'], ['all']], ids=['frozen_table', 'trained_table'])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(('size', 'window'), SIZES.values(), ids=SIZES.keys())
def test_backbone_equals_the_hosts(size, window, batch, train):
    deltas = dict(patt=dict(type='PATT', d_bottle=2))
    results = []
    for model in models(train, deltas, window_size=window):
        model.train()
        x = tiny.clip(batch, size).requires_grad_()
        y = model.backbone(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).mean().backward()
        results.append({'y': y.detach(), 'x': x.grad, **{n: p.grad for n, p in model.named_parameters()}})
    theirs, ours = results
    assert {n for n, g in theirs.items() if g is not None} == {n for n, g in ours.items() if g is not None}
    for name, value in theirs.items():
        if value is not None:
            close(ours[name], value)


def test_backbone_follows_changing_sizes():
    host, fast = models(['head'])
    host.eval()
    fast.eval()
    with torch.no_grad():
        for size in ((4, 32, 32), (8, 24, 24), (4, 16, 16), (4, 32, 32), (6, 24, 44)):
            close(fast.backbone(tiny.clip(1, size)), host.backbone(tiny.clip(1, size)))


def test_drop_path_and_dropouts_draw_alike():
    host, fast = models(['head'], drop_path_rate=0.5, drop_rate=0.3)
    outputs = []
    for model in (host, fast):
        model.train()
        torch.manual_seed(0)
        outputs.append(model.backbone(tiny.clip(4)))
    close(outputs[1], outputs[0])


def test_fast_is_the_default_and_none_is_the_hosts():
    cfg = tiny.config()
    del cfg['model']['petl']['attention']
    attention = [m.backbone.layers[0].blocks[0].attn for m in map(build_model, (cfg, tiny.config(attention=None)))]
    assert type(attention[0]) is FastWindowAttention3D
    assert type(attention[1]) is WindowAttention3D


@pytest.mark.parametrize('attention', [tiny.HOST, tiny.FAST], ids=['host', 'fast'])
def test_a_plain_swins_checkpoint_loads(attention):
    from mmaction.models.backbones import SwinTransformer3D

    arch = dict(embed_dims=16, depths=[2], num_heads=[2])
    swin = SwinTransformer3D(arch, pretrained2d=False, window_size=(2, 4, 4), drop_path_rate=0.0, out_indices=(0,))
    tiny.randomised(swin).eval()
    model = build_model(tiny.config(attention=attention)).eval()
    model.backbone.load_state_dict(swin.state_dict())
    close(model.backbone(tiny.clip()), swin(tiny.clip()))


# Deltas on the attention itself

PREFIX = dict(type='Prefix', num_tokens=3, d_middle=2)


@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
@pytest.mark.parametrize('deltas', [dict(), dict(prefix=PREFIX)], ids=['plain', 'prefix'])
def test_copies_of_a_models_attention_do_not_carry_what_was_kept(name, deltas):
    host = tiny.HOSTS[name]
    attention = host.part(host.blocks(host.build(deltas))[1], 'attn')
    before = len(pickle.dumps(attention))
    x = torch.randn(2, host.tokens, 16)
    with torch.no_grad():
        attention(x)
    assert attention._kept is not None
    assert len(pickle.dumps(attention)) <= before + 100
    assert copy.deepcopy(attention)._kept is None


@pytest.mark.parametrize('name', ['swin3d', 'swin2d'])
def test_what_is_kept_follows_the_mask_and_the_number_of_added_keys(name):
    """One attention, other masks, other deltas: each time as if it were the first call."""
    host = tiny.HOSTS[name]
    attention = host.part(host.blocks(host.build(dict(prefix=PREFIX)))[1], 'attn')
    x, n = torch.randn(4, host.tokens, 16, generator=torch.Generator().manual_seed(0)), host.tokens
    concat = tiny.randomised(PATT(16, d_bottle=2, mode='concat'))
    steps = [(None, False), (shift_mask(2, n), False), (shift_mask(2, n), True), (None, True), (None, False)]
    with torch.no_grad():
        for mask, more in steps:
            if more:
                attach(attention.qkv, 'patt', concat)
            elif 'deltas' in attention.qkv._modules:
                detach(attention.qkv)
            ours = attention(x, mask=mask)
            attention._kept = None
            assert torch.equal(ours, attention(x, mask=mask))


@pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])
def test_the_table_is_trained_beside_a_prefix(frozen):
    host = tiny.HOSTS['swin3d']
    model = host.build(dict(prefix=PREFIX), ['head'] if frozen else ['attn.rpb'])
    model.backbone(host.sample()).square().sum().backward()
    grads = [host.part(b, 'attn').relative_position_bias_table.grad for b in host.blocks(model)]
    assert all((g is None) == frozen for g in grads)
    assert frozen or all(g.any() for g in grads)


# The 2D Swin's


def flat_pair(**options) -> tuple[WindowMSA, FastWindowMSA]:
    host = tiny.randomised(WindowMSA(DIM, (3, 3), HEADS, **options))
    fast = FastWindowMSA(**FastWindowMSA.like(host))
    fast.load_state_dict(host.state_dict())
    return host, fast


@pytest.mark.parametrize('frozen', [False, True], ids=['trained_table', 'frozen_table'])
@pytest.mark.parametrize('options', [dict(), dict(qkv_bias=False), dict(qk_scale=0.1)], ids=str)
@pytest.mark.parametrize(('n_w', 'batch'), [(None, 3), (1, 1), (4, 3)])
def test_flat_equals_the_host_in_outputs_and_gradients(n_w, batch, options, frozen):
    results, mask = [], None if n_w is None else shift_mask(n_w, 9)
    for attention in flat_pair(**options):
        attention.relative_position_bias_table.requires_grad_(not frozen)
        x = tokens(batch * (n_w or 1), 9).requires_grad_()
        y = attention(x, mask=mask)
        (y * tokens(len(x), 9, seed=1)).sum().backward()
        results.append(dict(y=y.detach(), x=x.grad, **{n: p.grad for n, p in attention.named_parameters()}))
    theirs, ours = results
    assert list(theirs) == list(ours)
    for name, value in theirs.items():
        if value is not None:
            close(ours[name], value)


@pytest.mark.parametrize('train', [['head'], ['all']], ids=['frozen_table', 'trained_table'])
@pytest.mark.parametrize(('size', 'window'), [(24, 3), (32, 3), (32, 4), (44, 5)], ids=str)
def test_flat_backbone_equals_the_hosts(size, window, train):
    """Two stages, shifted windows, padded and not."""
    arch = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 4])
    options = dict(arch=arch, out_indices=(1,), window_size=window, img_size=size, pad_small_map=True)
    host, outputs = tiny.HOSTS['swin2d'], []
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for petl in (dict(attention=None), {}):
        model = host.build(
            {'patt': dict(type='PATT', d_bottle=2)}, train, petl=petl, head=dict(in_channels=32), **options
        )
        outputs.append(tiny.features(model, x))
    close(*outputs)
