"""A backbone's outputs and gradients with and without making anything again."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


def around(model: nn.Module, on: bool):
    return model.recomputing() if on else nullcontext()


def gradients(model: nn.Module, x: Tensor, on: bool, amp: bool = False, backwards: int = 1) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(0)
    with torch.autocast('cpu', torch.bfloat16, amp), around(model, on):
        y = model.backbone(x)
    y = y[-1] if isinstance(y, tuple) else y
    loss = (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
    for i in range(backwards):
        loss.backward(retain_graph=i + 1 < backwards)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return dict(y=y.detach(), x=x.grad, **grads)


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and theirs['x'].any()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
