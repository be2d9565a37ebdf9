"""An allocation of SPT for a small model, chosen by hand, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import Host, randomised
from torch import nn

from vpetl_mm import build_model
from vpetl_mm.petl import host_of
from vpetl_mm.spt.allocation import Allocation, UnitAllocation, write_allocation
from vpetl_mm.spt.units import units_of

RANK = 2
MATRIX = ('structured', 'sparse', 'none')
VECTOR = ('whole', 'sparse', 'none')
SEEDS = (0, 1, 2)  # together they tune every kind of unit in every way


def cost(shape: tuple[int, ...], structured: str, rank: int = RANK) -> int:
    """Return the parameters that tuning a whole unit takes."""
    if len(shape) == 1:
        return shape[0]
    d_out, d_in = shape
    return (d_in + d_out) * rank if structured == 'LoRA' else 2 * d_out * rank + rank + d_out


def by_hand(backbone: nn.Module, structured: str = 'LoRA', seed: int = 0, **changes: Any) -> Allocation:
    """Tune units in turn as a whole, in about a fifth of their entries, or not at all.

    Args:
        backbone: plain.
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        seed: decides where the turns begin and which entries are drawn.
        changes: to the Allocation.
    """
    generator, turns, rows, sparse = torch.Generator().manual_seed(seed), {}, [], {}
    for unit in units_of(backbone):
        turn = turns[unit.kind] = turns.get(unit.kind, seed + sum(map(ord, unit.kind))) + 1
        choice, entries = (MATRIX if len(unit.shape) == 2 else VECTOR)[turn % 3], 0
        if choice == 'sparse':
            drawn = torch.rand(unit.numel, generator=generator).argsort()[: max(1, unit.numel // 5)]
            sparse[unit.name], entries = drawn.sort().values.int(), len(drawn)
        params = {'none': 0, 'sparse': entries}.get(choice, cost(unit.shape, structured))
        rows.append(UnitAllocation(unit.name, unit.kind, unit.block, list(unit.shape), choice, params, 1.0))
    made = dict(config='by hand', options={}, rule='closest', alpha=10, beta=5, tau=1, seed=0, batches=1, samples=1)
    params = sum(r.params for r in rows)
    about = dict(
        host=host_of(backbone), structured=structured, rank=RANK, budget=params, params=params, class_token=False,
        rows=tuple(rows), base=None, control=None, made=dict(made, loss=1.0), sparse=sparse,
    )  # fmt: skip
    return Allocation(**dict(about, **changes))


def written(host: Host, folder: Path, structured: str = 'LoRA', seed: int = 0, **changes: Any) -> Path:
    """Write the allocation of :func:`by_hand` for a host of two blocks; return the file."""
    file = folder / f'{structured}_{seed}.safetensors'
    write_allocation(file, by_hand(build_model(host.config()).backbone, structured, seed, **changes))
    return file


def options(file: Path, structured: str = 'LoRA', **spt: Any) -> dict[str, Any]:
    """Return ``petl.spt`` of a config."""
    return dict(spt=dict(dict(file=str(file), structured=structured, rank=RANK), **spt))


def tuned(host: Host, folder: Path, structured: str = 'LoRA', seed: int = 0, **config: Any) -> nn.Module:
    """Return a host tuned by :func:`by_hand`, all parameters random, in eval mode."""
    petl = options(written(host, folder, structured, seed), structured)
    return randomised(build_model(host.config(petl=petl, **config)), 3).eval()
