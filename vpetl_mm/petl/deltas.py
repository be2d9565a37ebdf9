"""The deltas of one module."""

from __future__ import annotations

from typing import Any

from torch import nn

from .delta import Delta


class Deltas(nn.ModuleDict):
    """The deltas of one host.

    Args:
        how: the function that returns the host's class from its own, and further arguments; None where the host's
            attention asks them, past the host's own ``forward``.

    Attributes:
        silent: whether the host acts as if it had none, for the length of a call; see :func:`without_deltas`.
    """

    def __init__(self, how: tuple | None) -> None:
        super().__init__()
        self.how, self.silent = how, False


def deltas_of(host: nn.Module | None) -> list[Delta]:
    """Return the deltas of a module; none where it is no host, or they are silent."""
    deltas = host._modules.get('deltas') if host is not None else None
    return [] if deltas is None or deltas.silent else [d for d in deltas.values() if isinstance(d, Delta)]


def without_deltas(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module as it was before any delta sat on it, or on what is in it."""
    own = [m for m in module.modules() if isinstance(m, Deltas)]
    for deltas in own:
        deltas.silent = True
    try:
        return module(*args, **kwargs)
    finally:
        for deltas in own:
            deltas.silent = False


def of_delta(name: str) -> bool:
    """Tell whether a path of a parameter is that of a delta's."""
    return '.deltas.' in f'.{name}'
