"""Converted files: a backbone under its host's names, and the record of where every tensor came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ..errors import UserError
from ..files import from_json
from .contents import format_of
from .files import write_safetensors

FORMAT = 1
KEY = 'vpetl_mm'


@dataclass(frozen=True)
class Record:
    """What a converted file says of itself.

    Args:
        kind: of the source.
        host: the backbone class, a key of the place table.
        source: its file's name, ``sha256`` and ``bytes``.
        keys: a key of the source -> ``to`` and ``how``, or ``dropped`` and why.
        made: a tensor that the source has not -> what its values are.
        config: the config that it was fitted to, or None.
        heads: of the attention, where the source says how many.
        inputs: what the weights' inputs were normalised with, where the kind implies it: ``mean`` and ``std``, of the
            ``channels`` 'RGB', on the scale of 0 to 255.
    """

    kind: str
    host: str
    source: dict[str, Any]
    keys: dict[str, dict[str, Any]]
    made: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    heads: int | None = None
    inputs: dict[str, Any] | None = None
    format: int = FORMAT


def write_converted(file: Path, tensors: Mapping[str, Tensor], record: Record) -> None:
    """Write a converted file, whole or not at all, and its folder where there is none.

    Args:
        file: ends in .safetensors.
        tensors: under their final names.
        record: goes into the file's header, as JSON.

    Raises:
        UserError: when the disk does not take it.
    """
    write_safetensors(file, tensors, {'format': 'pt', KEY: json.dumps(asdict(record))})


def record_of(metadata: Mapping[str, str]) -> Record | None:
    """The record in a .safetensors file's metadata; None where the file is not a converted one.

    Raises:
        UserError: when there is a record, and it cannot be read.
    """
    if KEY not in metadata:
        return None
    try:
        record = Record(**from_json(metadata[KEY]))
        readable = isinstance(record.source['sha256'], str) and isinstance(record.host, str)
        readable = readable and type(record.heads) in (int, type(None))
        readable = readable and (record.inputs is None or all(map(_numbers, map(record.inputs.get, ('mean', 'std')))))
    except (ValueError, KeyError, TypeError, AttributeError):
        readable = False
    if not readable or record.format != FORMAT:
        raise UserError(f'its record of the conversion cannot be read as format {FORMAT}; convert it again.')
    return record


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)


def recorded_inputs(file: str | Path) -> dict[str, Any] | None:
    """:attr:`Record.inputs` of a converted file; None of any other file, and where none are recorded."""
    if format_of(Path(file)) != 'safetensors':
        return None
    with safe_open(file, 'pt') as opened:
        record = record_of(opened.metadata() or {})
    return record and record.inputs
