"""Video Swin in the order of its windows against the host's own blocks: outputs, gradients, random numbers."""

from __future__ import annotations

import copy
import math
import pickle

import chosen
import pytest
import tiny
import torch
from torch import Tensor, nn
from vpetl_mm.models.swin_stage import WindowedBlock, WindowedStage, window_order

from vpetl_mm import build_model

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
    """The host's blocks and ours, with the same weights."""
    options = dict(dict(depths=(2, 2), embed=8), **options)
    keys = any(d['type'] == 'Prefix' or d.get('mode') == 'concat' for d in (deltas or {}).values())
    host = build_model(tiny.config(deltas, train, attention=None if not keys else tiny.FAST, **options))
    fast = build_model(tiny.config(deltas, train, **options))
    if keys:  # the host's own attention has no room for them, so that its blocks alone are taken
        for module in host.backbone.modules():
            if isinstance(module, (WindowedBlock, WindowedStage)):
                module.forward = super(
                    WindowedBlock if isinstance(module, WindowedBlock) else WindowedStage, module
                ).forward
    fast.load_state_dict(tiny.randomised(host, std=0.2).state_dict())
    return host, fast


def step(model: nn.Module, x: Tensor, seed: int = 0) -> dict[str, Tensor | None]:
    """One training step's output and gradients, and the random number that comes next."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(seed)
    with model.recomputing():
        features = model.backbone(x)
    y = model.cls_head(features)
    after = torch.rand(1)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return dict(y=y.detach(), x=x.grad, after=after, **{n: p.grad for n, p in model.named_parameters()})


def same(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> None:
    assert {n for n, t in ours.items() if t is not None} == {n for n, t in theirs.items() if t is not None}
    assert theirs['y'].abs().max() > 1e-2 and theirs['x'].any(), 'nothing is compared'
    for name, value in theirs.items():
        if value is not None:
            torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f'{n}: {m}')


@pytest.mark.parametrize('rate', [0.0, 0.5])
@pytest.mark.parametrize(('size', 'window'), SIZES.values(), ids=SIZES.keys())
def test_a_step_equals_the_hosts(size, window, rate):
    host, fast = pair(BAPAT, ['all'], window_size=window, drop_path_rate=rate)
    x = tiny.clip(3, size)
    for model in (host, fast):
        model.train()
    for seed in range(1 + 2 * bool(rate)):
        same(step(fast, x, seed), step(host, x, seed))


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
GROUPS += ['downsample', 'patch_embed', 'head']


@pytest.mark.parametrize('group', GROUPS)
def test_every_train_group(group):
    host, fast = pair({}, [group], drop_path_rate=0.4)
    for model in (host, fast):
        model.train()
    x = tiny.clip(2, (8, 32, 32))
    ours = step(fast, x)
    same(ours, step(host, x))
    assert any(ours[n] is not None for n, _ in fast.named_parameters())


def lora(at: str, slots: str = 'qv') -> dict:
    return dict(lora=dict(type='LoRA', at=at, slots=slots, rank=2, alpha=3.0))


DELTAS = {
    **{f'patt_{slots}': dict(patt=dict(PATT, slots=slots)) for slots in ('qv', 'qk', 'qkv')},
    'patt_learned': dict(patt=dict(PATT, learn_scale=True, bias='down', act='GELU')),
    'patt_table': dict(patt=dict(PATT, source='tokens', num_tokens=32)),
    'concat': dict(patt=dict(PATT, mode='concat')),
    'prefix': dict(prefix=dict(type='Prefix', num_tokens=3, d_middle=2)),
    'branched': BRANCHED,
    'branched_patt': dict(BRANCHED, patt=PATT),
    'sequential': dict(adapter=dict(type='AdaptMLP', d_bottle=2, mode='sequential', scale=0.5)),
    **{f'lora_{at}': lora(at) for at in ('proj', 'fc1', 'fc2')},
    'lora_qkv': lora('qkv', 'qkv'),
    'adapter_behind_lora': dict(BAPAT, **lora('fc2')),
    'three_on_qkv': dict(patt=dict(PATT, slots='qk'), more=dict(PATT, slots='qv'), **lora('qkv')),
    'linear_adapter': dict(after=dict(type='LinearAdapter', at='fc1', d_bottle=2), **lora('fc1')),
}


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('deltas', DELTAS.values(), ids=DELTAS.keys())
def test_every_delta(deltas, mode):
    host, fast = pair(deltas, ['head', 'norm1'], drop_path_rate=0.6)
    for model in (host, fast):
        model.train(mode == 'train')
    x = tiny.clip(2, (8, 32, 32))
    same(step(fast, x, 3), step(host, x, 3))


@pytest.mark.parametrize('structured', ['LoRA', 'AdaptMLP'])
@pytest.mark.parametrize('seed', chosen.SEEDS)
def test_what_spt_tunes(tmp_path, structured, seed):
    host = tiny.HOSTS['swin3d']
    spt = chosen.options(chosen.written(host, tmp_path, structured, seed), structured)
    models = (host.build(petl=dict(spt, **more), drop_path_rate=0.5) for more in ({}, dict(attention=None)))
    x = tiny.clip(2, (8, 32, 32))
    ours, theirs = (step(tiny.randomised(m, std=0.2).train(), x) for m in models)
    same(ours, theirs)


@pytest.mark.parametrize('dropout', [dict(drop_rate=0.3), dict(attn_drop_rate=0.0, drop_rate=0.2)], ids=str)
def test_dropout_falls_on_the_same_tokens(dropout):
    host, fast = pair(BAPAT, ['all'], drop_path_rate=0.4, **dropout)
    x = tiny.clip(2, (8, 32, 32))
    for model in (host, fast):
        model.train()
    same(step(fast, x), step(host, x))


def test_activation_checkpointing():
    host, fast = pair(BAPAT, ['all'], with_cp=True)
    x = tiny.clip(2, (8, 32, 32))
    for model in (host, fast):
        model.train()
    same(step(fast, x), step(host, x))


def test_double_precision_is_exact_to_its_last_digits():
    host, fast = (m.double().train() for m in pair(BAPAT, ['all'], drop_path_rate=0.5))
    x = tiny.clip(2, (8, 32, 32)).double()
    theirs, ours = step(host, x), step(fast, x)
    for name in theirs.keys() - {'after'}:  # the host draws its numbers in double
        assert theirs[name].shape == ours[name].shape
    for model in (host, fast):
        model.eval()
    theirs, ours = step(host, x), step(fast, x)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-11, rtol=1e-10)


def test_a_step_follows_other_sizes_and_inference():
    host, fast = pair(BAPAT, ['all'])
    for size in ((8, 32, 32), (4, 16, 32), (8, 32, 32), (6, 24, 44), (4, 32, 32)):
        x = tiny.clip(2, size)
        for model in (host, fast):
            model.eval()
            with torch.inference_mode():
                model.backbone(x)
            model.train()
        same(step(fast, x), step(host, x))


def test_only_what_is_the_hosts_own_is_exchanged():
    _, fast = pair(BRANCHED, ['head'])
    stages = fast.backbone.layers
    assert all(type(s) is WindowedStage for s in stages)
    assert all(isinstance(b, WindowedBlock) for s in stages for b in s.blocks)
    plain = build_model(tiny.config(BRANCHED, ['head'], attention=None, depths=(2, 2)))
    assert not any(isinstance(m, (WindowedBlock, WindowedStage)) for m in plain.modules())
    assert list(plain.state_dict()) == list(build_model(tiny.config(BRANCHED, ['head'], depths=(2, 2))).state_dict())


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle'])
def test_copies_of_a_used_model(twin):
    _, fast = pair(dict(BAPAT, **lora('qkv')), ['all'])
    x = tiny.clip(2, (8, 32, 32))
    expected = step(fast.train(), x)
    same(step(twin(fast), x), expected)
    keys = list(fast.state_dict())
    assert keys == list(pair(dict(BAPAT, **lora('qkv')), ['all'])[1].state_dict())


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
    from vpetl_mm.models.swin_stage import _Reorder

    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: _Reorder.apply(t, order, order.argsort()), [x])
    assert torch.autograd.gradgradcheck(lambda t: _Reorder.apply(t, order, order.argsort()), [x])
