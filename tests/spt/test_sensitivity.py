"""Sensitivity against a plain computation in double precision, and what measuring leaves alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmpretrain.structures import DataSample
from tiny import HOSTS, Host
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.spt.sensitivity import Sensitivity, measure
from vpetl_mm.spt.units import Unit, units_of

NAMES = ['vit', 'vit_layerscale', 'videomae', 'swin3d', 'swin2d']
SIZES = (4, 4, 3)  # samples of the batches; the last is smaller


def batches(host: Host) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels."""
    return [(host.sample(n, seed=i), torch.arange(n) % 3) for i, n in enumerate(SIZES)]


def packed(host: Host) -> list[dict[str, Any]]:
    """The same as a data loader of the host's library returns it."""
    image = host.scope == 'mmpretrain'
    sample = DataSample if image else ActionDataSample
    return [
        dict(
            inputs=x if image else [clip[None] for clip in x],
            data_samples=[sample().set_gt_label(int(y)) for y in labels],
        )
        for x, labels in batches(host)
    ]


def model_of(host: Host, **options: Any) -> nn.Module:
    """As tools/sensitivity.py measures it: plain, all of it trained; random."""
    return tiny.randomised(build_model(host.config(train=['all'], **options)), 1)


def in_double(host: Host, model: nn.Module, **options: Any) -> dict[str, Tensor]:
    """Sum over batches of the squared gradient of the mean cross-entropy, by parameter."""
    plain = build_model(host.config(train=['all'], **options))
    plain.load_state_dict(model.state_dict())
    plain = plain.double().eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.train()
    found = {n: torch.zeros_like(p) for n, p in plain.backbone.named_parameters()}
    for x, labels in batches(host):
        plain.zero_grad()
        F.cross_entropy(tiny.classify(plain, x.double()), labels).backward()
        for name, parameter in plain.backbone.named_parameters():
            found[name] += parameter.grad**2
    return found


class InDouble(nn.Module):
    """Stands in for a data preprocessor, which would make float32 of the inputs."""

    def forward(self, data: dict[str, Any], training: bool) -> dict[str, Any]:
        assert training
        x = data['inputs']
        return dict(data, inputs=(x if torch.is_tensor(x) else torch.stack(x)).double())


def wanted_of(unit: Unit, expected: dict[str, Tensor]) -> np.ndarray:
    whole = expected[unit.param]
    return (whole.chunk(3)['qkv'.index(unit.slot)] if unit.slot else whole).flatten().numpy()


@pytest.mark.parametrize('name', NAMES)
def test_equals_a_plain_computation(name):
    """To what float32 can hold, where gradients are double as well."""
    host = HOSTS[name]
    model = model_of(host, drop_path_rate=0.5)  # which does not act
    expected = in_double(host, model)
    model.data_preprocessor = InDouble()
    result = measure(model.double().train(), packed(host), batches=16)
    assert (result.batches, result.samples) == (3, 11)
    units = units_of(model.backbone)
    assert [u.name for u in result.units] == [u.name for u in units]
    assert result.values.dtype == np.float32 and len(result.values) == sum(u.numel for u in units)
    largest = float(result.values.max())
    for unit, part in zip(result.units, result.parts(), strict=True):
        np.testing.assert_allclose(part, wanted_of(unit, expected), 1e-6, 1e-14 * largest, err_msg=unit.name)
    nothing = {u.name for u, p in zip(result.units, result.parts(), strict=True) if p.max() < 1e-12 * largest}
    final = f'{host.final.removeprefix("backbone.")}.bias'
    assert all(n == final or n.endswith('bias[k]') for n in nothing), 'BatchNorm and softmax take them out'


@pytest.mark.parametrize('name', NAMES)
def test_in_float32_too(name):
    host = HOSTS[name]
    options = {} if name == 'swin3d' else dict(head=dict(bn=False))  # BatchNorm of so few amplifies rounding
    model = model_of(host, **options)
    expected = in_double(host, model, **options)
    result = measure(model, packed(host))
    for unit, part in zip(result.units, result.parts(), strict=True):
        wanted = wanted_of(unit, expected)
        if not unit.name.endswith('bias[k]'):
            assert np.linalg.norm(part - wanted) < 1e-4 * np.linalg.norm(wanted), unit.name
            np.testing.assert_allclose(part, wanted, 1e-4, 1e-5 * wanted.max(), err_msg=unit.name)


def test_the_loss_is_the_mean_of_the_batches():
    host = HOSTS['vit']
    model = model_of(host)
    plain = build_model(host.config(train=['all'])).eval()
    plain.load_state_dict(model.state_dict())
    plain.head.bn.train()
    losses = [F.cross_entropy(tiny.classify(plain, x), y).item() for x, y in batches(host)]
    assert measure(model, packed(host)).loss == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize('asked', [1, 2, 3])
def test_takes_no_more_batches_than_asked_for(asked):
    host, taken, told = HOSTS['vit'], [], []

    def loader():
        for batch in packed(host):
            taken.append(1)
            yield batch

    result = measure(model_of(host), loader(), asked, lambda: told.append(1))
    assert len(taken) == result.batches == len(told) == asked and result.samples == sum(SIZES[:asked])


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_is_the_same_twice_and_draws_nothing(name):
    host = HOSTS[name]
    options = dict(drop_path_rate=0.5)
    model = model_of(host, **options).train()
    torch.manual_seed(0)
    first = measure(model, packed(host)).values
    state = torch.get_rng_state()
    second = measure(model, packed(host)).values
    assert np.array_equal(first, second) and torch.equal(torch.get_rng_state(), state)


def test_dropout_does_not_act():
    host = HOSTS['vit']
    model = model_of(host)
    expected = measure(model, packed(host)).values
    model.backbone.drop_after_pos = nn.Dropout(0.9)
    model.head.fc = nn.Sequential(nn.Dropout(0.9), model.head.fc)
    assert np.array_equal(measure(model.train(), packed(host)).values, expected)


# what it holds and leaves


@pytest.mark.parametrize('name', ['vit', 'videomae', 'swin3d'])
def test_one_gradient_is_alive_at_a_time_and_none_after_a_batch(name):
    host, alive, after = HOSTS[name], [], []
    model = model_of(host)
    candidates = {u.param for u in units_of(model.backbone)}

    def held() -> int:
        return sum(p.grad is not None for p in model.parameters())

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: alive.append(held()))
    measure(model, packed(host), advance=lambda: after.append(held()))
    assert after == [0, 0, 0]
    assert len(alive) == 3 * len(candidates) and max(alive) == 1, 'of candidates alone, each freed before the next'


def is_left_alone(model: nn.Module) -> bool:
    params = model.parameters()
    return all(p.grad is None and not p.requires_grad and not p._post_accumulate_grad_hooks for p in params)


def test_leaves_the_model_without_gradients_or_hooks_and_as_it_was():
    host = HOSTS['swin3d']
    model = model_of(host)
    before = {k: v.clone() for k, v in model.state_dict().items() if '.bn.' not in k}
    measure(model, packed(host))
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert is_left_alone(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    tiny.classify(model, host.sample()).sum().backward()
    assert all(p.grad is not None for p in model.backbone.parameters()), 'the hooks are gone'


def test_an_error_half_way_leaves_no_hook():
    host = HOSTS['vit']
    model = model_of(host)

    def loader():
        yield packed(host)[0]
        raise UserError('a file is gone')

    with pytest.raises(UserError, match='a file is gone'):
        measure(model, loader())
    assert is_left_alone(model)


def test_with_activation_checkpointing_too():
    host = HOSTS['swin3d']
    model = model_of(host, with_cp=True)
    expected = in_double(host, model)
    result = measure(model.train(), packed(host))
    for unit, part in zip(result.units, result.parts(), strict=True):
        if unit.kind in ('fc1', 'norm'):
            wanted = expected[unit.param].flatten().numpy()
            np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=1e-9 * wanted.max(), err_msg=unit.name)


# wrong input


def test_no_batch():
    with pytest.raises(UserError, match='no training data'):
        measure(model_of(HOSTS['vit']), [])


class Poisoned(torch.autograd.Function):
    """The same forwards; ``bad`` as the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, bad: float) -> Tensor:
        ctx.bad = bad
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(grad, ctx.bad), None


def test_a_task_on_which_nothing_depends_is_refused():
    """As of one class, whose loss is 0 whatever the weights."""
    host = HOSTS['vit']
    model = model_of(host)
    model.backbone.register_forward_hook(lambda module, args, y: Poisoned.apply(y[0], 0.0)[None].unbind())
    with pytest.raises(UserError, match='every gradient is 0, at a mean loss of'):
        measure(model, packed(host))


@pytest.mark.parametrize('bad', [math.nan, math.inf, 1e30], ids=str)
def test_a_gradient_that_is_not_finite_is_named(bad):
    """Put in behind the second block's fc1, it reaches what lies in front of it and nothing behind."""
    host = HOSTS['vit']
    model = model_of(host)
    count = iter(range(9))

    def poison(module, args, y):
        return Poisoned.apply(y, bad) if next(count) == 1 else y

    model.backbone.layers[1].ffn.layers[0][0].register_forward_hook(poison)
    with pytest.raises(UserError) as error:
        measure(model, packed(host))
    said = str(error.value)
    assert 'gradient of backbone.layers.0.ln1.weight is not finite' in said and 'in batch 2' in said
    assert '\n' not in said


def test_a_head_that_returns_nan_is_found_in_the_first_batch():
    host = HOSTS['vit']
    model = model_of(host)
    with torch.no_grad():
        model.head.fc.bias.fill_(math.nan)
    with pytest.raises(UserError, match=r'gradient of backbone\.\S+ is not finite.*batch 1 \(its loss is nan\)'):
        measure(model, packed(host))


# controls

UNITS = [Unit(f'm{i}', (8, 5), 'fc1', 'h') for i in range(3)]
UNITS += [Unit('n', (3, 4), 'q', 'h'), Unit('v', (6,), 'norm', 'h')]


def measured() -> Sensitivity:
    values = np.random.default_rng(0).lognormal(0, 3, sum(u.numel for u in UNITS)).astype(np.float32)
    return Sensitivity(UNITS, values, 4, 100, 1.5)


@pytest.mark.parametrize('kind', ['random', 'shuffled'])
def test_a_control_is_of_the_same_size_and_of_its_seed(kind):
    real = measured()
    before = real.values.copy()
    control, again, other = real.control(kind, 1), real.control(kind, 1), real.control(kind, 2)
    assert np.array_equal(control.values, again.values) and not np.array_equal(control.values, other.values)
    assert control.values.shape == before.shape and control.values.dtype == np.float32 and control.units == UNITS
    assert (control.batches, control.samples, control.loss) == (4, 100, 1.5)
    assert np.array_equal(real.values, before)


def test_shuffled_deals_the_same_values_out_to_equal_shapes():
    real = measured()
    parts = [sorted(p.tolist()) for p in real.parts()]
    swapped = False
    for seed in range(5):
        control = real.control('shuffled', seed).parts()
        assert not any(np.array_equal(a, b) for a in control for b in real.parts()), 'mixed inside as well'
        dealt = [sorted(p.tolist()) for p in control]
        assert sorted(map(tuple, dealt[:3])) == sorted(map(tuple, parts[:3])), 'matrices of one shape change places'
        assert dealt[3:] == parts[3:]
        swapped |= dealt[:3] != parts[:3]
    assert swapped


def test_random_knows_nothing_of_the_values():
    real = measured()
    random = real.control('random', 3).values
    changed = Sensitivity(UNITS, real.values[::-1].copy()).control('random', 3).values
    assert np.array_equal(random, changed) and random.min() >= 0 and random.max() < 1
    assert len(np.unique(random)) == len(random)
