"""What records or transforms a model's operations: torch.func and tracing, with deltas that write in place."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

DELTAS = dict(patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.5))
HOSTS = {**{name: (host, host.sample()) for name, host in tiny.HOSTS.items()}}
HOSTS['swin3d_in_windows'] = (tiny.HOSTS['swin3d'], tiny.clip(2, (4, 32, 32)))  # which its windows divide


def last(model: nn.Module, x: Tensor) -> Tensor:
    with model.recomputing():
        y = model.backbone(x)
    return y[-1] if isinstance(y, tuple) else y


def loss(model: nn.Module, x: Tensor) -> Tensor:
    y = last(model, x)
    return (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()


class Last(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return last(self.model, x)


@pytest.mark.parametrize('gelu', ['exact', '8bit'])
@pytest.mark.parametrize('name', HOSTS)
def test_torch_func(name, gelu):
    host, x = HOSTS[name]
    model, exact = host.build(DELTAS, petl=dict(gelu=gelu)), host.build(DELTAS)  # of the same weights
    ours = torch.func.grad(lambda x: loss(model, x))(x)
    leaf = x.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(loss(exact, leaf), leaf)
    assert theirs.any() and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.filterwarnings('ignore')  # tracing is deprecated, and says what it cannot see
@pytest.mark.parametrize('name', HOSTS)
def test_tracing(name):
    host, x = HOSTS[name]
    model = host.build(DELTAS)
    traced = torch.jit.trace(Last(model), x)
    other = torch.flip(x, [0]) * 0.5
    with torch.no_grad():
        theirs = last(model, other)
    assert (traced(other) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
