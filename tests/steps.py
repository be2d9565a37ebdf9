"""One step of a model or a module: what comes out, and every gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Step = dict[str, Tensor | None]


def last(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A backbone's last output."""
    return y[-1] if isinstance(y, tuple) else y


def weighed(y: Tensor) -> Tensor:
    """A loss whose gradient differs everywhere."""
    return (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()


def step(
    module: nn.Module, x: Tensor, *args: Any, seed: int = 0, amp: bool = False, backwards: int = 1,
    run: Callable[..., Any] | None = None,
) -> Step:  # fmt: skip
    """Run a model's backbone, or a module, and go back.

    Args:
        module: holds the parameters.
        x: its input.
        args: what it takes beside.
        seed: of what is drawn.
        amp: run under bfloat16 autocast.
        backwards: how many times to go back.
        run: what is called instead of the module.

    Returns:
        The output y, the random number ``after`` it, and the gradients of ``x`` and of each parameter, None for none.
    """
    x = x.clone().requires_grad_()
    module.zero_grad()
    torch.manual_seed(seed)
    with torch.autocast('cpu', torch.bfloat16, amp):
        y = last((run or getattr(module, 'backbone', module))(x, *args))
    after, loss = torch.rand(1), weighed(y)
    for i in range(backwards):
        loss.backward(retain_graph=i + 1 < backwards)
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
    return dict(y=y.detach(), x=x.grad, after=after, **grads)


def same(ours: Step, theirs: Step, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Check that two steps have the same results, and something to compare."""
    assert {n for n, t in ours.items() if t is not None} == {n for n, t in theirs.items() if t is not None}
    assert theirs['y'].abs().max() > 1e-2 and theirs['x'].any(), 'nothing is compared'
    for name, value in theirs.items():
        if value is not None:
            size = max(1.0, float(value.abs().max())) if value.numel() else 1.0
            torch.testing.assert_close(
                ours[name], value, atol=atol * size, rtol=rtol, msg=lambda m, n=name: f'{n}: {m}'
            )


def equal(ours: Step, theirs: Step) -> None:
    """Check that two steps are the same bit for bit."""
    same(ours, theirs, 0, 0)


def near(ours: Step, theirs: Step, exact: Step, slack: float = 2**-8) -> None:
    """Check that ``ours`` is no further from ``exact`` than twice what ``theirs`` is, each by its norm."""
    assert ours.keys() == theirs.keys() == exact.keys()
    for name, value in exact.items():
        if value is not None:
            mine, other = ((s[name].float() - value).norm() / (value.norm() + 1e-6) for s in (ours, theirs))
            assert mine <= 2 * other + slack, (name, mine, other)


def keeping(model: nn.Module) -> nn.Module:
    """A copy of a fast model that keeps what autograd asks for, instead of computing it again."""
    twin = copy.deepcopy(model)
    twin.backbone.__class__ = type(model.backbone).plain
    return twin
