"""Every method that changes weights, merged: the plain model; where a bias has nowhere to go, nothing changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import tiny
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vpetl_mm.petl import adapt, merge

METHODS = {
    'ssf': dict(type='SSF'),
    'rep_adapter': dict(type='RepAdapter', d_bottle=4, scale=0.5),
    'dora': dict(type='DoRA', at=['qkv', 'proj', 'fc1', 'fc2'], slots='qk', rank=2, alpha=6),
    'fact_tt': dict(type='FacT', rank=3),
    'fact_tk': dict(type='FacT', form='TK', rank=3),
    'fact_tk_published': dict(type='FacT', form='TK', rank=3, published=True),
    'vera': dict(type='VeRA', at=['qkv', 'proj', 'fc1', 'fc2'], rank=16),
    'kadaptation': dict(type='KAdaptation', n=4, slots='qkv'),
}
SIZES = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3)


def eva(separate: bool = False, **options: Any) -> nn.Module:
    """timm's Eva with biases of q and v alone, joined to the projection's or, ``separate``, added behind it."""
    model = timm.models.Eva(**SIZES, **options)
    for block in model.blocks:
        block.attn.qkv_bias_separate = separate
    return model


def naflex(**options: Any) -> nn.Module:
    """timm's NaFlexVit with Eva's attention."""
    sizes = {k: v for k, v in SIZES.items() if k != 'img_size'}
    return timm.create_model('naflexvit_base_patch16_gap', attn_type='eva', swiglu_mlp=True, **sizes, **options)


TIMM: dict[str, Callable[[], nn.Module]] = {
    'eva': partial(eva, use_rot_pos_emb=False),
    'eva_separate': partial(eva, True, use_rot_pos_emb=False),
}


class Calls(TorchDispatchMode):
    """Notes what torch is asked to compute, with its shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.seen.append((str(func), *(tuple(a.shape) for a in args if isinstance(a, Tensor))))
        return func(*args, **kwargs or {})


def work(model: nn.Module, x: Tensor) -> list[tuple]:
    with torch.no_grad(), Calls() as calls:
        model(x)
    return calls.seen


def kinds(model: nn.Module) -> dict[str, type]:
    return {n: type(m) for n, m in model.named_modules()}


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def tuned(name: str, method: str) -> tuple[nn.Module, Callable[[], Any], Tensor, nn.Module]:
    """A backbone with a method on it, what merges it, an input, and the plain backbone of the same weights."""
    deltas = dict(delta=METHODS[method])
    if name in TIMM:
        plain, x = tiny.randomised(TIMM[name]()).eval(), tiny.HOSTS['vit'].sample()
        model = copy.deepcopy(plain)
        plan = adapt(model, deltas, train=[])
        tiny.randomised(nn.ParameterList(plan.parameters()), 1, std=0.5)
        return model, plan.merge, x, plain
    host = tiny.HOSTS[name]
    model, plain = host.build(deltas), host.build({})
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if 'deltas.' not in k})
    return model.backbone, partial(merge, model), host.sample(), plain.backbone


def first(y: Any) -> Tensor:
    return y[-1] if isinstance(y, tuple) else y


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d', *TIMM])
@torch.no_grad()
def test_a_merged_method_is_the_plain_model(name: str, method: str):
    model, merged, x, plain = tuned(name, method)
    before = first(model(x))
    assert relative(first(plain(x)), before) > 5e-3, 'the deltas matter'
    merged()
    assert relative(first(model(x)), before) < 1e-5
    assert kinds(model) == kinds(plain) and model.state_dict().keys() == plain.state_dict().keys()
    assert work(model, x) == work(plain, x)


@pytest.mark.parametrize(
    ('make', 'method'),
    [
        pytest.param(partial(eva, use_rot_pos_emb=True), 'rep_adapter', id='keys are turned'),
        pytest.param(partial(naflex, rope_type='axial', qkv_fused=False), 'rep_adapter', id='keys of a layer are'),
        pytest.param(partial(naflex, qk_norm=True), 'kadaptation', id='keys are normalised'),
        pytest.param(partial(timm.models.VisionTransformer, **SIZES, pre_norm=True), 'ssf', id='no bias'),
    ],
)
@torch.no_grad()
def test_a_bias_that_has_nowhere_to_go_is_refused_and_nothing_changes(make: Callable[[], nn.Module], method: str):
    model, x = tiny.randomised(make()).eval(), tiny.HOSTS['vit'].sample()
    plan = adapt(model, dict(delta=METHODS[method]))
    tiny.randomised(nn.ParameterList(plan.parameters()), 1)
    state, classes, trained = copy.deepcopy(model.state_dict()), kinds(model), tiny.trainable(model)
    before, settings = model(x), plan.settings()
    with tiny.refused('has no bias', plan.settings()['delta']['type'], 'cannot be merged'):
        plan.merge()
    assert kinds(model) == classes and tiny.trainable(model) == trained and plan.settings() == settings
    assert torch.equal(model(x), before)
    now = model.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[k], v) for k, v in state.items())
