"""Which products oneDNN makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.mkldnn._linear_pointwise:
            self.seen.append(args[3])
        return func(*args, **(kwargs or {}))


@contextmanager
def products(**expected: int) -> Iterator[None]:
    """Asserts how many there are of each activation that they put on themselves; ``none`` is a plain one."""
    with _Products() as mode:
        yield
    assert {act: mode.seen.count(act) for act in {*mode.seen, *expected}} == expected


@contextmanager
def fused(**expected: int) -> Iterator[None]:
    """As :func:`products`, plain ones left out."""
    with _Products() as mode:
        yield
    seen = [act for act in mode.seen if act != 'none']
    assert {act: seen.count(act) for act in seen} == expected
