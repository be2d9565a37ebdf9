"""Video Swin in the order of its windows against the host's own blocks: outputs, gradients, random numbers."""

from __future__ import annotations

import math

import chosen
import pytest
import tiny
import torch
from steps import same, step
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.fast.swin_stage import WindowedBlock, _Reorder, window_order

PATT = dict(type='PATT', d_bottle=2)
BAPAT = dict(patt=PATT, adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))
BRANCHED = dict(adapter=dict(type='AdaptMLP', d_bottle=2, source='residual', scale=0.5))

# clip, window; tokens are half the frames and a quarter of height and width
SIZES = {
    'shifted_in_time_and_space': ((8, 32, 32), (2, 4, 4)),
    'shifted_in_time_alone': ((8, 16, 16), (2, 4, 4)),
    'shifted_in_space_alone': ((4, 32, 32), (2, 4, 4)),
    'shifted_in_one_direction': ((4, 16, 32), (2, 4, 4)),
    'odd_windows': ((12, 24, 48), (3, 3, 3)),
    'not_divided': ((6, 24, 44), (2, 4, 4)),
    'smaller_than_a_window': ((4, 12, 12), (8, 7, 7)),
}


def pair(deltas: dict | None, train: list[str], **options) -> tuple[nn.Module, nn.Module]:
    """The host's blocks, with its own attention, and ours, with the same weights, in training."""
    options = {'depths': (2, 2), 'embed': 8, **options}
    plain = tiny.config(deltas, train, attention=tiny.HOST, **options)
    plain['model']['petl']['fast'] = False
    host, fast = build_model(plain), build_model(tiny.config(deltas, train, **options))
    fast.load_state_dict(tiny.randomised(host, std=0.2).state_dict())
    return host.train(), fast.train()


def check(pair: tuple[nn.Module, nn.Module], x: Tensor, **how) -> None:
    host, fast = pair
    same(step(fast, x, **how), step(host, x, **how))


@pytest.mark.parametrize('rate', [0.0, 0.5])
@pytest.mark.parametrize(('size', 'window'), SIZES.values(), ids=SIZES.keys())
def test_a_step_equals_the_hosts(size, window, rate):
    models = pair(BAPAT, ['all'], window_size=window, drop_path_rate=rate)
    for seed in range(1 + 2 * bool(rate)):
        check(models, tiny.clip(3, size), seed=seed)


def test_the_windowed_way_is_taken_unless_a_hook_looks(monkeypatch):
    _, fast = pair(BAPAT, ['head'])
    shapes, forward = [], WindowedBlock.forward

    def spy(self: WindowedBlock, x: Tensor, mask_matrix: Tensor | None) -> Tensor:
        shapes.append(tuple(x.shape))
        return forward(self, x, mask_matrix)

    monkeypatch.setattr(WindowedBlock, 'forward', spy)
    fast.backbone(tiny.clip(2, (8, 32, 32)))
    assert shapes[:2] == [(2, 8, 32, 8)] * 2  # clips, windows, tokens of one, width
    for size, hooked in (((6, 24, 44), False), ((8, 32, 32), True)):
        shapes.clear()
        if hooked:
            fast.backbone.layers[0].blocks[1].norm1.register_forward_hook(lambda *_: None)
        fast.backbone(tiny.clip(2, size))
        assert shapes[:2] == [(2, size[0] // 2, size[1] // 4, size[2] // 4, 8)] * 2  # the host's volume


GROUPS = ['all', 'bias', 'norm', 'norm1', 'norm2', 'attn.qkv', 'attn.proj', 'attn.rpb', 'mlp.fc1', 'mlp.fc2']
GROUPS += ['downsample', 'patch_embed']


@pytest.mark.parametrize('group', GROUPS)
def test_every_train_group(group):
    check(pair({}, [group], drop_path_rate=0.4), tiny.clip(2, (8, 32, 32)))


@pytest.mark.parametrize('structured', ['LoRA', 'AdaptMLP'])
@pytest.mark.parametrize('seed', chosen.SEEDS)
def test_what_spt_tunes(tmp_path, structured, seed):
    host = tiny.HOSTS['swin3d']
    spt = chosen.options(chosen.written(host, tmp_path, structured, seed), structured)
    models = (
        host.build(petl=dict(spt, **more), drop_path_rate=0.5) for more in (dict(attention=None, fast=False), {})
    )
    check(tuple(tiny.randomised(m, std=0.2).train() for m in models), tiny.clip(2, (8, 32, 32)))


@pytest.mark.parametrize(
    'options',
    [dict(drop_rate=0.3, drop_path_rate=0.4), dict(attn_drop_rate=0.0, drop_rate=0.2), dict(with_cp=True)],
    ids=str,
)
def test_dropout_falls_on_the_same_tokens_and_checkpointing_is_the_hosts(options):
    check(pair(BAPAT, ['all'], **options), tiny.clip(2, (8, 32, 32)))


def test_a_step_follows_other_sizes_and_inference():
    models = pair(BAPAT, ['all'])
    for size in ((8, 32, 32), (4, 16, 32), (8, 32, 32), (6, 24, 44), (4, 32, 32)):
        for model in models:
            with torch.inference_mode():
                model.eval().backbone(tiny.clip(2, size))
            model.train()
        check(models, tiny.clip(2, size))


# The order itself


def order_by_hand(size: tuple, window: tuple, shift: tuple) -> list[int]:
    """Window after window, token after token: where each lies in the volume after it is rolled back by the shift."""
    found = []
    for origin in ((t, h, w) for t in range(0, size[0], window[0]) for h in range(0, size[1], window[1])
                   for w in range(0, size[2], window[2])):  # fmt: skip
        for inside in ((t, h, w) for t in range(window[0]) for h in range(window[1]) for w in range(window[2])):
            t, h, w = ((o + i + s) % n for o, i, s, n in zip(origin, inside, shift, size, strict=True))
            found.append((t * size[1] + h) * size[2] + w)
    return found


@pytest.mark.parametrize('shift', [(0, 0, 0), (1, 2, 1), (0, 1, 0), (1, 0, 2)], ids=str)
def test_the_order_of_windows(shift):
    size, window = (4, 8, 6), (2, 4, 3)
    order = window_order(size, window, shift)
    assert order.tolist() == order_by_hand(size, window, shift)
    assert sorted(order) == list(range(math.prod(size)))
    assert window_order(size, window, None).tolist() == list(range(math.prod(size)))


def test_the_gradient_of_a_new_order_goes_back():
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: _Reorder.apply(t, order, order.argsort()), [x])
    assert torch.autograd.gradgradcheck(lambda t: _Reorder.apply(t, order, order.argsort()), [x])
