"""The file between tools/sensitivity.py and a training run: what is tuned where, and how that was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from ..files import from_json
from ..weights.files import write_safetensors
from .choice import STRUCTURED, Choice, Settings
from .units import Unit

FORMAT = 1
KEY = 'vpetl_mm_spt'
STRUCTURAL, WHOLE, SPARSE, NONE = 'structured', 'whole', 'sparse', 'none'


@dataclass(frozen=True)
class Row:
    """What a file says of one unit.

    Args:
        name, kind, block, shape: of the unit.
        choice: ``'structured'``, ``'whole'``, ``'sparse'`` or ``'none'``.
        params: what is trained there.
        sensitivity: the sum over its entries.
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
    """What is tuned in a backbone.

    Args:
        host: the backbone's class, a key of the place table.
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck.
        budget: in parameters, the head left out.
        params: what it trains, the head left out.
        class_token: whether the class token is trained.
        rows: every unit of the backbone, in its order.
        base: of the weights it was measured on ``file``, and ``sha256`` of its tensors as the backbone loads them;
            None for a random backbone.
        control: ``'random'`` or ``'shuffled'`` where it was chosen without sensitivity; None otherwise.
        made: how it was found: config, options, rule, alpha, beta, tau, seed, batches, samples, loss.
        sparse: the name of a unit -> flat positions of its tuned entries, ascending, int32.
    """

    host: str
    structured: str
    rank: int
    budget: int
    params: int
    class_token: bool
    rows: tuple[Row, ...]
    base: dict[str, str] | None
    control: str | None
    made: dict[str, Any]
    sparse: dict[str, Tensor] = field(repr=False)

    @property
    def digest(self) -> str:
        """A SHA-256 of what is tuned, however it was found."""
        about = (
            self.host,
            self.structured,
            self.rank,
            self.class_token,
            [(r.name, r.shape, r.choice) for r in self.rows],
        )
        digest = hashlib.sha256(json.dumps(about).encode())
        for name in sorted(self.sparse):
            digest.update(name.encode() + self.sparse[name].numpy().tobytes())
        return digest.hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """One SHA-256 over tensors and their names, whatever file and number format they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        value = value.float() if value.is_floating_point() else value
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def rows_of(units: Sequence[Unit], parts: Sequence[np.ndarray], choice: Choice, cost: Any) -> tuple[Row, ...]:
    """What a file says of each unit.

    Args:
        units: of the backbone.
        parts: the sensitivities of each.
        choice: what is tuned.
        cost: unit -> the parameters of tuning the whole of it.
    """
    kinds = dict.fromkeys(choice.structured, STRUCTURAL) | dict.fromkeys(choice.whole, WHOLE)
    kinds |= dict.fromkeys(choice.sparse, SPARSE)
    rows = []
    for unit, part in zip(units, parts, strict=True):
        kind = kinds.get(unit.name, NONE)
        params = {SPARSE: len(choice.sparse.get(unit.name, ())), NONE: 0}.get(kind, cost(unit))
        total = float(part.sum(dtype=np.float64))
        rows.append(Row(unit.name, unit.kind, unit.block, list(unit.shape), kind, params, total))
    return tuple(rows)


def write_allocation(file: Path, allocation: Allocation) -> None:
    """Write an allocation as .safetensors, whole or not at all.

    Raises:
        UserError: when the disk does not take it.
    """
    about = {k: v for k, v in asdict(allocation).items() if k != 'sparse'}
    write_safetensors(file, allocation.sparse, {KEY: json.dumps(dict(format=FORMAT, **about))})


def read_allocation(file: str | Path) -> Allocation:
    """The allocation in a file.

    Raises:
        UserError: when it is missing, is none of tools/sensitivity.py, or is corrupt.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f'The SPT file {path} does not exist; tools/sensitivity.py makes it from the same config.')
    try:
        with safe_open(path, 'pt') as content:
            about = from_json((content.metadata() or {})[KEY])
            sparse = {k: content.get_tensor(k) for k in content.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f'{path} is no file of tools/sensitivity.py, or is broken; make it again.') from error
    try:
        if about.pop('format') != FORMAT:
            raise ValueError('its format is another')
        rows = tuple(Row(**row) for row in about.pop('rows'))
        allocation = Allocation(rows=rows, sparse=sparse, **about)
        _check(allocation)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise UserError(
            f'The SPT file {path} is corrupt ({error}); make it again with tools/sensitivity.py.'
        ) from error
    return allocation


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
        raise ValueError('its indices are of other units than its rows')
    for name, index in allocation.sparse.items():
        if index.dtype != torch.int32 or index.ndim != 1 or not len(index) or len(index) != chosen[name].params:
            raise ValueError(f'the indices of {name} are {index.dtype} of shape {tuple(index.shape)}')
        if index[0] < 0 or index[-1] >= np.prod(chosen[name].shape) or not (index[1:] > index[:-1]).all():
            raise ValueError(f'the indices of {name} are not ascending within {chosen[name].shape}')
    dimensions = {STRUCTURAL: (2,), WHOLE: (1,), SPARSE: (1, 2), NONE: (1, 2)}
    if any(len(r.shape) not in dimensions.get(r.choice, ()) for r in allocation.rows):
        raise ValueError('a row is tuned in a way that its shape does not allow')
    settings = Settings(allocation.structured, allocation.rank)
    whole = {r.name: settings.cost(Unit(r.name, tuple(r.shape), r.kind, '')) for r in allocation.rows}
    wrong = (r for r in allocation.rows if r.choice != SPARSE and r.params != whole[r.name] * (r.choice != NONE))
    rest = allocation.params - sum(r.params for r in allocation.rows)
    above = made.get('rule') == 'within' and allocation.params > allocation.budget
    if any(wrong) or rest < 0 or (rest > 0) != allocation.class_token or above:
        raise ValueError('its counts do not add up')
