"""The ViTs' heads: BatchNorm without weights, how they start, and what of them is kept."""

from __future__ import annotations

import pytest
import tiny
import torch
from mmaction.structures import ActionDataSample
from tiny import HOSTS
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.engine.adapter import FORMAT, adapter_state, load_trained, trained_meta
from vpetl_mm.models.token_head import PETLImageHead, PETLTokenHead

D, CLASSES = 8, 5
KINDS = pytest.mark.parametrize('kind', [PETLImageHead, PETLTokenHead], ids=lambda k: k.__name__)
MODELS = pytest.mark.parametrize('name', ['vit', 'videomae'])
PATT = dict(patt=dict(type='PATT', d_bottle=2))


def fc_of(head: nn.Module) -> nn.Linear:
    return head.fc if isinstance(head, PETLImageHead) else head.fc_cls


def run(head: nn.Module, x: Tensor) -> Tensor:
    """mmpretrain's heads take a tuple of features, mmaction2's one tensor."""
    return head((x * 0 + 7, x)) if isinstance(head, PETLImageHead) else head(x)


def tokens(batch: int = 6, seed: int = 0) -> Tensor:
    return 3 + 2 * torch.randn(batch, D, generator=torch.Generator().manual_seed(seed))


def classified(head: nn.Module, x: Tensor) -> Tensor:
    return x @ fc_of(head).weight.T + fc_of(head).bias


@KINDS
def test_in_training_the_batch_is_normalised(kind):
    head, x = tiny.randomised(kind(CLASSES, D)), tokens()
    normal = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(run(head.train(), x), classified(head, normal), atol=1e-5, rtol=1e-5)


@KINDS
def test_in_testing_the_running_statistics_are_used(kind):
    head, x = tiny.randomised(kind(CLASSES, D)), tokens()
    run(head.train(), x)
    mean, var = 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0)
    torch.testing.assert_close(head.bn.running_mean, mean)
    torch.testing.assert_close(head.bn.running_var, var)
    other = tokens(2, seed=1)
    expected = classified(head, (other - mean) / (var + 1e-6).sqrt())
    torch.testing.assert_close(run(head.eval(), other), expected, atol=1e-5, rtol=1e-5)


@KINDS
def test_the_batchnorm_has_no_weights(kind):
    head = kind(CLASSES, D)
    assert {tuple(p.shape) for p in head.parameters()} == {(CLASSES, D), (CLASSES,)}
    assert sum(p.numel() for p in head.parameters()) == CLASSES * D + CLASSES


@KINDS
def test_without_batchnorm_it_is_one_linear_layer(kind):
    head = tiny.randomised(kind(CLASSES, D, bn=False))
    assert not list(head.buffers())
    for mode in (True, False):
        torch.testing.assert_close(run(head.train(mode), tokens()), classified(head, tokens()))


@KINDS
def test_starts_narrow_and_with_fresh_statistics(kind):
    torch.manual_seed(0)
    head = kind(100, 200)
    if isinstance(head, PETLImageHead):
        head((torch.randn(4, 200),))
    else:
        head(torch.randn(4, 200))
    head.init_weights()
    weight = fc_of(head).weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.02) and abs(weight.mean().item()) < 2e-4
    assert weight.abs().max() > 0.03, 'normal, neither uniform nor cut'
    assert not fc_of(head).bias.any()
    assert not head.bn.running_mean.any() and torch.equal(head.bn.running_var, torch.ones(200))
    assert head.bn.num_batches_tracked == 0


@MODELS
def test_starts_so_in_a_model(name):
    model = build_model(HOSTS[name].config(seed=0, head=dict(num_classes=700)), init_weights=True)
    weight = fc_of(model.get_submodule(HOSTS[name].head)).weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.03)


@KINDS
@pytest.mark.parametrize('bn', [True, False], ids=['bn', 'no_bn'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_logits_are_float32_under_autocast(kind, bn, train):
    head, x = tiny.randomised(kind(CLASSES, D, bn=bn)).train(train), tokens()
    exact = run(head, x)
    with torch.autocast('cpu', torch.bfloat16):
        logits = run(head, x.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=0.15, rtol=0.05)


@KINDS
@pytest.mark.parametrize('bn', ['yes', None, 2])
def test_another_bn_is_said(kind, bn):
    with tiny.refused('bn', repr(bn)):
        kind(CLASSES, D, bn=bn)


# In an adapter file


def trained(name: str, train: list[str], bn: bool = True) -> nn.Module:
    """A model that saw a batch and took a step."""
    host = HOSTS[name]
    model = build_model(host.config(PATT, train, seed=1, head=dict(bn=bn)), init_weights=True).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    tiny.classify(model, host.sample(4)).square().sum().backward()
    optimizer.step()
    return model.eval()


def save(model: nn.Module, file) -> dict[str, Tensor]:
    state = adapter_state(model)
    torch.save(dict(state_dict=state, meta=dict(adapter_format=FORMAT, **trained_meta(model))), file)
    return state


@MODELS
@pytest.mark.parametrize('train', [['head'], []], ids=['trained', 'frozen'])
@pytest.mark.parametrize('bn', [True, False], ids=['bn', 'no_bn'])
def test_head_and_statistics_come_back(name, train, bn, tmp_path):
    """Also those of a frozen, random head: it is part of the model."""
    host, model = HOSTS[name], trained(name, train, bn)
    state = save(model, tmp_path / 'a.pth')
    statistics = {f'{host.head}.bn.{b}' for b in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert {k for k in state if not k.startswith('backbone.')} == host.fc | (statistics if bn else set())

    config = host.config(PATT, train, seed=1, head=dict(bn=bn))
    other = build_model(config, init_weights=True).eval()
    with torch.no_grad():
        for name_ in host.fc:
            other.get_parameter(name_).normal_()
        load_trained(other, tmp_path / 'a.pth')
        assert torch.equal(tiny.classify(other, host.sample()), tiny.classify(model, host.sample()))
    head = other.get_submodule(host.head)
    assert not bn or (head.bn.num_batches_tracked == 1 and head.bn.running_mean.any())


@MODELS
def test_a_file_without_the_statistics_is_refused(name, tmp_path):
    host, model = HOSTS[name], trained(name, ['head'])
    save(model, tmp_path / 'a.pth')
    content = torch.load(tmp_path / 'a.pth', weights_only=True)
    del content['state_dict'][f'{host.head}.bn.running_var']
    torch.save(content, tmp_path / 'a.pth')
    with tiny.refused('bn.running_var'):
        load_trained(build_model(host.config(PATT, seed=1), init_weights=True), tmp_path / 'a.pth')


def test_views_of_a_clip_are_averaged_as_logits():
    head, x = tiny.randomised(PETLTokenHead(CLASSES, D)).eval(), tokens()
    logits = classified(head, x / (1 + 1e-6) ** 0.5)
    samples = head.predict(x, [ActionDataSample() for _ in range(2)])
    expected = logits.view(2, 3, CLASSES).mean(1)
    torch.testing.assert_close(torch.stack([s.pred_score for s in samples]), expected, atol=1e-5, rtol=1e-5)
