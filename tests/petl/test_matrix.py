"""Every delta, alone and in combination, on every host, crossed with every behaviour that all of them share."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest
import tiny
import torch
from cases import C, every
from tiny import Host, features
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, load_trained, trained_meta


def plain_of(host: Host, model: nn.Module) -> nn.Module:
    """The same model without deltas, with the same weights."""
    plain = build_model(host.config()).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in k}, strict=True)
    return plain


@every()
def test_adds_keys_and_a_plain_checkpoint_loads(host, case):
    plain = host.build(seed_weights=5)
    model, theirs = build_model(host.config(case.deltas)), plain.state_dict()
    ours = model.state_dict()
    assert {k: tuple(v.shape) for k, v in ours.items() if k not in theirs} == case.names(host, held=True)
    assert {k: v.shape for k, v in ours.items() if k in theirs} == {k: v.shape for k, v in theirs.items()}

    keys = model.load_state_dict(theirs, strict=False)
    assert not keys.unexpected_keys
    assert set(keys.missing_keys) == set(case.names(host, held=True))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in theirs.items())


@every(lambda case: case.silent)
def test_starts_at_zero_as_the_plain_model(host, case):
    model = build_model(host.config(case.zeroed()), init_weights=True).eval()
    expected = features(plain_of(host, model), host.sample())
    assert expected.std() > 1e-3
    assert torch.equal(features(model, host.sample()), expected)


@every()
def test_each_delta_reaches_the_output(host, case):
    """Without any, with the first, with the first two, and so on."""
    model, outputs = host.build(case.deltas), []
    for count in range(len(case.deltas) + 1):
        kept = dict(list(case.deltas.items())[:count])
        part = build_model(host.config(kept)).eval()
        state = {k: v for k, v in model.state_dict().items() if case.delta_of(k) in {'', *kept}}
        part.load_state_dict(state, strict=True)
        outputs.append(features(part, host.sample()))
    assert torch.equal(outputs[-1], features(model, host.sample()))
    assert outputs[0].shape == outputs[-1].shape
    for before, after in pairwise(outputs):
        assert (before - after).abs().max() > 1e-4


@every()
def test_only_what_should_train_trains(host, case):
    model = host.build(case.deltas, train=['head']).train()
    before = copy.deepcopy(model.state_dict())
    wanted = {*case.names(host), *host.fc}
    assert tiny.trainable(model) == wanted

    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    tiny.classify(model, host.sample(4)).square().mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert grads.keys() == wanted
    for name in (n for n in grads if n.endswith('.up.weight')):  # keys and values apart
        assert all(slot.any() for slot in grads[name].split(C)), name
    optimizer.step()

    after = model.state_dict()
    statistics = {k for k in before if k.startswith(f'{host.head}.bn.')}
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    # the same for every key is nothing to the softmax, so that only rounding may move it
    free = {k for k in wanted if k.endswith('.up.k.bias')}
    assert changed | free == wanted | statistics


@every()
def test_freezing_the_head_leaves_the_deltas(host, case):
    assert tiny.trainable(build_model(host.config(case.deltas, train=[]))) == set(case.names(host))


@every()
def test_a_saved_adapter_comes_back(host, case, tmp_path):
    cfg = host.config(case.deltas, seed=3)
    trained, fresh = (build_model(cfg, init_weights=True).eval() for _ in range(2))
    _redraw(trained)
    with torch.no_grad():  # moves a BatchNorm's statistics, where there is one
        tiny.classify(trained.train(), host.sample(4))
    trained.eval()
    state = adapter_state(trained)
    statistics = {k for k in trained.state_dict() if k.startswith(f'{host.head}.bn.')}
    assert set(state) == {*case.names(host, held=True), *host.fc, *statistics}

    meta = dict(adapter_format=FORMAT, **trained_meta(trained))
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'adapter.pth')
    with torch.no_grad():
        expected, before = (tiny.classify(m, host.sample()) for m in (trained, fresh))
        assert not torch.allclose(before, expected, atol=1e-3)
        load_trained(fresh, tmp_path / 'adapter.pth')
        assert torch.equal(tiny.classify(fresh, host.sample()), expected)


def _redraw(model: nn.Module) -> None:
    """Other values for what is trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


@every()
@pytest.mark.parametrize('how', ['deepcopy', 'pickle'])
def test_copies_are_equal_and_independent(host, case, how):
    model = host.build(case.deltas)
    before = features(model, host.sample())
    twin = copy.deepcopy(model) if how == 'deepcopy' else pickle.loads(pickle.dumps(model))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert tiny.trainable(twin) == tiny.trainable(model)
    assert twin.plan.model is twin
    assert torch.equal(features(twin, host.sample()), before)

    tiny.randomised(twin, seed=9)
    assert not torch.equal(features(twin, host.sample()), before)
    assert torch.equal(features(model, host.sample()), before)


@every(lambda case: case.captured)
def test_is_captured_as_one_graph(host, case):
    model = host.build(case.deltas, depth=1)
    expected = features(model, host.sample())
    torch._dynamo.reset()
    compiled = torch.compile(model.backbone, backend='eager', fullgraph=True)
    with torch.no_grad():
        y = compiled(host.sample())
    torch.testing.assert_close(y[-1] if isinstance(y, tuple) else y, expected, atol=1e-6, rtol=1e-6)


@every(lambda case: any(spec.get('dropout') for spec in case.deltas.values()))
def test_dropout_acts_in_training_alone(host, case):
    model = host.build(case.deltas)
    assert torch.equal(features(model, host.sample()), features(model, host.sample()))
    assert not torch.equal(features(model.train(), host.sample()), features(model, host.sample()))
    kept = host.build({name: dict(spec, dropout=0.0) for name, spec in case.deltas.items()}).train()
    assert torch.equal(features(kept, host.sample()), features(model.eval(), host.sample()))


# What starts at zero: the names' beginnings, by type
ZERO = {'AdaptMLP': ('up', 'down.bias'), 'LoRA': ('B',), 'PATT': (), 'Prefix': (), 'Prompt': ()}
ZERO |= {'STAdapter': ('conv', 'down.bias', 'up.bias'), 'FrameEmbedding': ('table',)}
ZERO['AIMTime'] = tuple(f'{part}.{p}' for part in ('inward', 'outward') for p in ('up', 'down.bias'))
ZERO['LinearAdapter'] = ('up', *(f'down.{slot}.bias' for slot in ('q', 'k', 'v', 'out')))


@every()
def test_initialisation_is_the_deltas_own(host, case):
    for specs in (case.deltas, *([case.zeroed()] if case.zeroed() != case.deltas else [])):
        state = build_model(host.config(specs, seed=3), init_weights=True).state_dict()
        for name in case.names(host):
            spec, parameter = specs[case.delta_of(name)], name.partition('.deltas.')[2].partition('.')[2]
            zero = ('up',) if spec.get('init') == 'zero' else ZERO.get(spec['type'], ())
            if spec['type'] in STARTS:
                check_start(state[name], parameter, STARTS[spec['type']], spec.get('init') == 'identity')
            elif parameter in case.constant:
                assert (state[name] == case.constant[parameter]).all(), name
            elif parameter == 'scale':
                assert state[name].item() == pytest.approx({'PATT': 0.8, 'AdaptMLP': 0.1}[spec['type']])
            elif parameter.startswith(zero):
                assert not state[name].any(), name
            elif spec['type'] == 'AIMTime':
                assert 0.01 < state[name].std() < 0.03, name
            elif parameter == 'tokens':
                check_table(state[name], spec['type'])
            else:
                check_linear(state[name], state[name.removesuffix('bias').removesuffix('weight') + 'weight'].shape[1])


# Of the others: the names' beginnings -> mean and standard deviation, or None, which a test of the method looks at
STARTS = {
    'SSF': {'gamma': (1, 0.02), 'beta': (0, 0.02)},
    'RepAdapter': {'down.weight': (0, 0.1**0.5), '': (0, 0)},  # Xavier: 2 / (4 + 16)
    'DoRA': {'A': (0, 48**-0.5), 'B': (0, 0), 'm': None},
    'FacT': {'U': (0, 48**-0.5), 'V': (0, 0), 'S': None, 'C': (0, 0.5), 'P': (0, 13**-0.5)},
    'VeRA': {'d': (0.1, 0), 'b': (0, 0)},
    'KAdaptation': {'a': (0, 0.5**0.5), 'b': (0, 0.5**0.5), 'u': (0, 0.2**0.5), '': (0, 0)},
    'Convpass': {'down.weight': (0, 0.1**0.5), 'conv.weight': None, '': (0, 0)},
    'Mona': {
        **{'s1': (1e-6, 0), 's2': (1, 0), 'norm.weight': (1, 0), 'down.weight': (0, 0.02), 'up.weight': (0, 0.02)},
        **{'depthwise.0': (0, 27**-0.5), 'depthwise.1': (0, 75**-0.5), 'pointwise': (0, 12**-0.5), '': (0, 0)},
    },
    'Compacter': {'A': (0, 1e-4), **{f'{p}.{n}': None for p in ('down', 'up') for n in 'st'}, '': (0, 0)},
    'AdapterPlus': {'down.weight': (0, 0.01), 'up.weight': (0, 0.01), 'scale': (1, 0), '': (0, 0)},
    'MHPA': {'K': (0, 0.02), 'V': (0, 0.02), 'norm.weight': (1, 0), '': (0, 0)},
}


def check_start(drawn: Tensor, name: str, starts: dict, identity: bool) -> None:
    """The start of a parameter; few numbers say little about how they were drawn."""
    if (expected := next(value for start, value in starts.items() if name.startswith(start))) is None:
        assert drawn.any()
        return
    mean, std = expected if not identity else (expected[0], 0)
    if not std:
        assert torch.allclose(drawn, torch.full_like(drawn, mean), rtol=0, atol=1e-9), name
    elif drawn.numel() >= 64:
        assert 0.6 * std < drawn.std() < 1.5 * std and (drawn.mean() - mean).abs() < std, name
    else:
        assert drawn.any() and (drawn - mean).abs().max() < 6 * std, name


def check_linear(drawn: Tensor, fan_in: int) -> None:
    """As nn.Linear draws: uniform within 1 / sqrt(fan_in), and, where many are drawn, not narrower."""
    bound, largest = fan_in**-0.5, drawn.abs().max()
    assert 0 < largest <= bound and (drawn.numel() < 16 or largest > 0.5 * bound)


def check_table(drawn: Tensor, kind: str) -> None:
    """Prompts are uniform within sqrt(3 / d), the others' tables normal."""
    if kind == 'Prompt':
        assert 0.7 * (3 / C) ** 0.5 < drawn.abs().max() <= (3 / C) ** 0.5
    else:
        assert 0.5 < drawn.std() < 1.5 and drawn.abs().max() > 1


@every()
def test_the_host_is_initialised_as_without_deltas(host, case):
    """To the last digit: by the host's own rules, from the config's seed."""
    with_deltas, plain = (build_model(host.config(d, seed=3), init_weights=True) for d in (case.deltas, {}))
    state = with_deltas.state_dict()
    assert all(torch.equal(state[k], v) for k, v in plain.state_dict().items())
