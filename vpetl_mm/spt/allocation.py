"""The file that tools/sensitivity.py writes for training: what is tuned where, and how it was chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError, reason
from ..files import from_json, need_safetensors
from ..petl import host_of
from .choice import STRUCTURED, Choice, Settings, choose
from .sensitivity import Sensitivity
from .units import Unit

FORMAT = 1
KEY = 'vpetl_mm_spt'
STRUCTURAL, WHOLE, SPARSE, NONE = 'structured', 'whole', 'sparse', 'none'


@dataclass(frozen=True)
class UnitAllocation:
    """The tuning of one unit.

    Args:
        name, kind, block, shape: of the unit.
        choice: ``'structured'``, ``'whole'``, ``'sparse'`` or ``'none'``.
        params: number of trained parameters.
        sensitivity: the sum over the unit's entries.
    """

    name: str
    kind: str
    block: int | None
    shape: list[int]
    choice: str
    params: int
    sensitivity: float


@dataclass(frozen=True)
class Allocation:
    """The tuning of a backbone.

    Args:
        host: the backbone's class, a key of the place table.
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck.
        budget: in parameters, without the head.
        params: number of trained parameters, without the head.
        class_token: whether the class token is trained.
        rows: every unit of the backbone, in its order.
        base: the weights it was measured on, ``file`` and ``sha256`` (of the tensors as the backbone loads them);
            None for a random backbone.
        control: ``'random'`` or ``'shuffled'`` if it was chosen without sensitivity; None otherwise.
        made: how it was chosen: config, options, rule, alpha, beta, tau, seed, head, gradients, batches, samples,
            loss.
        sparse: the name of a unit -> flat positions of its tuned entries, ascending, int32.
    """

    host: str
    structured: str
    rank: int
    budget: int
    params: int
    class_token: bool
    rows: tuple[UnitAllocation, ...]
    base: dict[str, str] | None
    control: str | None
    made: dict[str, Any]
    sparse: dict[str, Tensor] = field(repr=False)

    @property
    def digest(self) -> str:
        """A SHA-256 of what is tuned, however it was chosen."""
        units = [(r.name, r.shape, r.choice) for r in self.rows]
        about = self.host, self.structured, self.rank, self.class_token, units
        digest = hashlib.sha256(json.dumps(about).encode())
        for name in sorted(self.sparse):
            digest.update(name.encode() + self.sparse[name].numpy().tobytes())
        return digest.hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return one SHA-256 of tensors and their names, independent of order and floating-point format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        value = value.float() if value.is_floating_point() else value
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def rows_of(
    units: Sequence[Unit], parts: Sequence[np.ndarray], choice: Choice, cost: Callable[[Unit], int]
) -> tuple[UnitAllocation, ...]:
    """Describe what is tuned of each unit, from its sensitivities (``parts``) and the cost of tuning all of it."""
    kinds = dict.fromkeys(choice.structured, STRUCTURAL) | dict.fromkeys(choice.whole, WHOLE)
    kinds |= dict.fromkeys(choice.sparse, SPARSE)
    rows = []
    for unit, part in zip(units, parts, strict=True):
        kind = kinds.get(unit.name, NONE)
        params = {SPARSE: len(choice.sparse.get(unit.name, ())), NONE: 0}.get(kind, cost(unit))
        total = float(part.sum(dtype=np.float64))
        rows.append(UnitAllocation(unit.name, unit.kind, unit.block, list(unit.shape), kind, params, total))
    return tuple(rows)


def allocated(
    backbone: nn.Module,
    sensitivity: Sensitivity,
    budget: int,
    settings: Settings,
    base: dict[str, str] | None,
    control: str | None = None,
    **made: Any,
) -> Allocation:
    """Choose what to tune under a budget.

    Args:
        backbone: that was measured.
        sensitivity: of its units.
        budget: in parameters, without the head.
        settings: of the rule.
        base, control, made: of :class:`Allocation`; what the sensitivity and the rule say of ``made`` is added.

    Raises:
        UserError: for a budget that is too small, or larger than the backbone.
    """
    choice = choose(sensitivity.units, sensitivity.values, budget, settings)
    made |= {k: v for k, v in asdict(settings).items() if k in ('alpha', 'beta', 'rule')}
    made |= {k: getattr(sensitivity, k) for k in ('batches', 'samples', 'loss')}
    return Allocation(
        host=host_of(backbone),
        structured=settings.structured,
        rank=settings.rank,
        budget=budget,
        params=choice.params,
        class_token=choice.class_token,
        rows=rows_of(sensitivity.units, sensitivity.parts(), choice, settings.cost),
        base=base,
        control=control,
        made=dict(made, tau=choice.tau),
        sparse={name: torch.from_numpy(index) for name, index in choice.sparse.items()},
    )


def write_allocation(file: Path, allocation: Allocation) -> None:
    """Write an allocation as .safetensors, whole or not at all.

    Raises:
        UserError: when the file cannot be written.
    """
    need_safetensors()
    from ..weights.files import write_safetensors

    write_safetensors(file, allocation.sparse, {KEY: json.dumps(described(allocation))})


def described(allocation: Allocation) -> dict[str, Any]:
    """Return everything of an allocation but the entries, as JSON can hold it."""
    return dict(format=FORMAT, **{k: v for k, v in asdict(allocation).items() if k != 'sparse'})


def allocation_of(about: Any, sparse: dict[str, Tensor]) -> Allocation:
    """Return the allocation of what :func:`described` returned, and the entries.

    Raises:
        ValueError: for what tools/sensitivity.py cannot have written.
    """
    try:
        about = dict(about)
        if about.pop('format') != FORMAT:
            raise ValueError('its format is different')
        rows = tuple(UnitAllocation(**row) for row in about.pop('rows'))
        allocation = Allocation(rows=rows, sparse=sparse, **about)
        _check(allocation)
    except (KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(reason(error)) from error
    return allocation


def read_allocation(file: str | Path) -> Allocation:
    """Read an allocation.

    Raises:
        UserError: when the file is missing, was not written by tools/sensitivity.py, or is corrupt.
    """
    need_safetensors()
    from safetensors import SafetensorError, safe_open

    path = Path(file)
    if not path.is_file():
        raise UserError(f'The SPT file {path} does not exist; create it with tools/sensitivity.py and this config.')
    try:
        with safe_open(path, 'pt') as content:
            about = from_json((content.metadata() or {})[KEY])
            sparse = {k: content.get_tensor(k) for k in content.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f'{path} is broken, or was not written by tools/sensitivity.py; create it again.') from error
    try:
        return allocation_of(about, sparse)
    except ValueError as error:
        raise UserError(f'The SPT file {path} is corrupt ({error}); run tools/sensitivity.py again.') from error


def _check(allocation: Allocation) -> None:
    """Raise ValueError for what tools/sensitivity.py cannot have written."""
    if allocation.structured not in STRUCTURED or type(allocation.rank) is not int or allocation.rank < 1:
        raise ValueError(f'structured is {allocation.structured!r} of rank {allocation.rank!r}')
    base, made = allocation.base, allocation.made
    if not all(type(n) is int for n in (allocation.budget, allocation.params)) or not isinstance(made, dict):
        raise ValueError(f'budget is {allocation.budget!r}, params {allocation.params!r} and made {made!r}')
    if base is not None and not (isinstance(base, dict) and all(type(base[k]) is str for k in ('file', 'sha256'))):
        raise ValueError(f'base is {base!r}')
    chosen = {r.name: r for r in allocation.rows if r.choice == SPARSE}
    if set(chosen) != set(allocation.sparse):
        raise ValueError('its indices and its rows are of different units')
    for name, index in allocation.sparse.items():
        if index.dtype != torch.int32 or index.ndim != 1 or not len(index) or len(index) != chosen[name].params:
            raise ValueError(f'the indices of {name} are {index.dtype} of shape {tuple(index.shape)}')
        if index[0] < 0 or index[-1] >= np.prod(chosen[name].shape) or not (index[1:] > index[:-1]).all():
            raise ValueError(f'the indices of {name} are not ascending positions in {chosen[name].shape}')
    dimensions = {STRUCTURAL: (2,), WHOLE: (1,), SPARSE: (1, 2), NONE: (1, 2)}
    if any(len(r.shape) not in dimensions.get(r.choice, ()) for r in allocation.rows):
        raise ValueError('a unit of this shape cannot be tuned as it says')
    settings = Settings(allocation.structured, allocation.rank)
    for row in allocation.rows:
        whole = settings.cost(Unit(row.name, tuple(row.shape), row.kind, ''))
        if row.choice != SPARSE and row.params != whole * (row.choice != NONE):
            raise ValueError(f'{row.name} does not train {row.params} parameters')
    rest = allocation.params - sum(r.params for r in allocation.rows)
    above = made.get('rule') == 'within' and allocation.params > allocation.budget
    if rest < 0 or (rest > 0) != allocation.class_token or above:
        raise ValueError('its counts do not add up')
