"""Recomputing leaves no memory, hooks or state behind, and no gradient is silently another."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from contextlib import nullcontext

import pytest
import tiny
import torch
from gradients import around, equal, gradients
from torch import Tensor, nn
from vpetl_mm.models.recompute import note, recomputing

from vpetl_mm import build_model
from vpetl_mm.petl import layout_of

BAPAT = dict(patt=dict(type='PATT', d_bottle=2), adapter=dict(type='AdaptMLP', d_bottle=2, scale=0.5))


@pytest.mark.parametrize('backward', [False, True], ids=['forward_alone', 'backward'])
@pytest.mark.parametrize('name', ['swin3d', 'vit'])
def test_a_graph_goes_with_its_output(name, backward):
    """Also where nobody calls backward, such as after a loss that is not finite; no cycle keeps it alive."""
    host = tiny.HOSTS[name]
    model = host.build(BAPAT, ['all']).train()
    held = []
    for norm in layout_of(model.backbone).norms(model.backbone):
        norm.register_forward_hook(lambda m, args, y: held.append(weakref.ref(args[0].untyped_storage())))
    with model.recomputing():
        y = model.backbone(host.sample())
    y = y[-1] if isinstance(y, tuple) else y
    assert len(held) == 4 and all(ref() is not None for ref in held)
    if backward:
        y.sum().backward()
    del y
    gc.collect()
    assert not [ref for ref in held if ref() is not None]


def test_hooks_are_removed_after_an_error():
    model = tiny.tiny(BAPAT, ['all'], depths=(2, 2)).train()
    count = [len(m._forward_hooks) for m in model.modules()]

    def fail(*_):
        raise KeyError('on purpose')

    handle = model.backbone.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match='on purpose'), model.recomputing():
        model.backbone(tiny.clip())
    handle.remove()
    assert [len(m._forward_hooks) for m in model.modules()] == count
    packed = torch.ones(2, requires_grad=True) * torch.ones(2)
    assert packed.grad_fn._saved_other is not None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):  # the only ones
        assert note('norm', packed, lambda: 1 / 0) is packed
    x = tiny.clip()
    equal(gradients(model, x, True), gradients(model, x, False))


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle'])
def test_copies_after_a_step(twin):
    model, x = tiny.tiny(BAPAT, ['all']), tiny.clip()
    expected = gradients(model, x, True)
    other = twin(model)
    equal(gradients(other, x, True), expected)
    assert list(other.state_dict()) == list(build_model(tiny.config(BAPAT, ['all'])).state_dict())


def test_two_models_in_turn():
    one, other = tiny.tiny(BAPAT, ['all'], seed_weights=1), tiny.tiny(BAPAT, ['all'], seed_weights=2)
    x, losses = tiny.clip(), []
    with one.recomputing():
        a = one.backbone(x)
        with other.recomputing():
            b = other.backbone(a.mean((2, 3, 4)).view(2, 1, 4, 2, 2)[:, :, :2].repeat(1, 3, 4, 12, 12))
        c = one.backbone(x * 2)
    losses = [b.sum() + c.square().mean()]
    losses[0].backward()
    ours = [p.grad.clone() for m in (one, other) for p in m.parameters() if p.grad is not None]
    one.zero_grad()
    other.zero_grad()
    a = one.backbone(x)
    b = other.backbone(a.mean((2, 3, 4)).view(2, 1, 4, 2, 2)[:, :, :2].repeat(1, 3, 4, 12, 12))
    (b.sum() + one.backbone(x * 2).square().mean()).backward()
    theirs = [p.grad for m in (one, other) for p in m.parameters() if p.grad is not None]
    assert len(ours) == len(theirs) > 60
    for mine, expected in zip(ours, theirs, strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    model, x = tiny.tiny(BAPAT, ['all']), tiny.clip()
    expected = model.backbone(x)
    with mode(), model.recomputing():
        y = model.backbone(x)
        assert not any(m._forward_hooks for m in model.modules())
    torch.testing.assert_close(y, expected)
    assert not y.requires_grad
    equal(gradients(model, x, True), gradients(model, x, False))


def test_the_models_own_way_is_recomputing():
    """extract_feat, which training goes through; in inference there is nothing to recompute."""
    model = tiny.HOSTS['vit'].build(BAPAT, ['all']).train()
    seen = []
    norm, other = list(layout_of(model.backbone).norms(model.backbone))[:2]
    other.register_forward_hook(lambda m, args, y: seen.append(len(norm._forward_hooks)))
    model.extract_feat(tiny.HOSTS['vit'].sample())
    with torch.no_grad():
        model.extract_feat(tiny.HOSTS['vit'].sample())
    assert seen == [1, 0]


def test_a_norm_whose_output_a_hook_changes_is_kept():
    model, x, grads = tiny.tiny(BAPAT, ['all']).train(), tiny.clip(), []
    for norm in layout_of(model.backbone).norms(model.backbone):
        norm.register_forward_hook(lambda m, args, y: y * 1.5)
    for on in (False, True):
        model.zero_grad()
        with around(model, on):
            y = model.backbone(x)
        y.square().mean().backward()
        grads.append([p.grad.clone() for p in model.backbone.parameters() if p.grad is not None])
    for theirs, ours in zip(*grads, strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
def test_backward_in_another_thread(amp):
    """As on a GPU, where autograd has threads of its own, which know of no autocast."""
    model, x, grads = tiny.tiny(BAPAT, ['all']).train(), tiny.clip(), []
    for on in (False, True):
        model.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, amp), around(model, on):
            y = model.backbone(x)
        thread = threading.Thread(target=y.float().square().mean().backward)
        thread.start()
        thread.join()
        grads.append([p.grad.clone() for p in model.backbone.parameters() if p.grad is not None])
    assert len(grads[0]) > 30
    for theirs, ours in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


def test_the_backward_passes_own_autocast_does_not_matter():
    model, x, grads = tiny.tiny(BAPAT, ['norm']).train(), tiny.clip(), []
    for on in (False, True):
        model.zero_grad()
        with around(model, on):
            y = model.backbone(x)
        with torch.autocast('cpu', torch.bfloat16):
            y.square().mean().backward()
        grads.append([p.grad.clone() for p in model.backbone.parameters() if p.grad is not None])
    for theirs, ours in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


# What is changed in place meanwhile


def changed(what: str, on: bool, trained: bool) -> Tensor | str:
    """The gradient of a small layer whose parts change between forward and backward, or that PyTorch raises."""
    norm, fc = tiny.randomised(nn.LayerNorm(6)).requires_grad_(trained), tiny.randomised(nn.Linear(6, 6), 1)
    leaf = torch.linspace(-1, 2, 24).view(4, 6).square().requires_grad_(trained)
    x = leaf * 1
    with recomputing([norm]) if on else nullcontext():
        h = norm(x)
        if what == 'output_at_once':
            h = h.mul_(3)
        y = fc(h).tanh()
    parts = dict(norm=norm.weight, fc=fc.weight, x=x, y=y, output=h)
    with torch.no_grad():
        if what in parts:
            parts[what].mul_(2)
    try:
        y.square().sum().backward()
    except RuntimeError as error:
        assert 'modified' in str(error)
        return 'raises'
    return fc.weight.grad


@pytest.mark.parametrize('trained', [False, True], ids=['frozen', 'trained'])
@pytest.mark.parametrize('what', ['nothing', 'norm', 'fc', 'x', 'y', 'output', 'output_at_once'])
def test_no_gradient_is_silently_another(what, trained):
    """Either PyTorch's own gradient, or an error; an error at least where PyTorch raises one."""
    theirs, ours = changed(what, False, trained), changed(what, True, trained)
    if isinstance(theirs, str) and what != 'output':  # what is not kept may change
        assert isinstance(ours, str)
    elif not isinstance(ours, str) and not isinstance(theirs, str):
        torch.testing.assert_close(ours, theirs)
    if what in ('nothing', 'output_at_once'):
        assert isinstance(ours, Tensor)
