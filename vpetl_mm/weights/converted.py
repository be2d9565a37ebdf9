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
from .shards import is_index

FORMAT = 1
KEY = 'vpetl_mm'


@dataclass(frozen=True)
class Origin:
    """The record in a converted file's header.

    Args:
        kind: of the source.
        host: the backbone class, a key of the place table.
        source: ``file`` (its name), ``sha256``, ``bytes`` and ``part`` of the source.
        keys: each key of the source -> ``to`` and ``how``, or ``dropped`` and the reason.
        made: each tensor that is not in the source -> its values, in words.
        config: the config that the weights were fitted to, or None.
        heads: of the attention, where the source tells.
        inputs: ``mean`` and ``std`` of the inputs (on the scale of 0 to 255) and ``channels`` ('RGB'); None where the
            kind does not imply them.
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


def write_converted(file: Path, tensors: Mapping[str, Tensor], origin: Origin) -> None:
    """Write ``tensors``, under their final names, and their origin, as JSON in the header; whole or not at all.

    Raises:
        UserError: when the file cannot be written.
    """
    write_safetensors(file, tensors, {'format': 'pt', KEY: json.dumps(asdict(origin))})


def origin_of(metadata: Mapping[str, str]) -> Origin | None:
    """Read the record in a .safetensors file's metadata; None where the file was not converted.

    Raises:
        UserError: when the record cannot be read.
    """
    if KEY not in metadata:
        return None
    try:
        origin = Origin(**from_json(metadata[KEY]))
        readable = isinstance(origin.source['sha256'], str) and isinstance(origin.host, str)
        readable = readable and type(origin.heads) in (int, type(None))
        readable = readable and (origin.inputs is None or all(map(_numbers, map(origin.inputs.get, ('mean', 'std')))))
    except (ValueError, KeyError, TypeError, AttributeError):
        readable = False
    if not readable or origin.format != FORMAT:
        raise UserError(f'its record of the conversion is not readable as format {FORMAT}; convert it again.')
    return origin


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)


def recorded_inputs(file: str | Path) -> dict[str, Any] | None:
    """Return :attr:`Origin.inputs` of a file; None where it records none."""
    if is_index(file) or format_of(Path(file)) != 'safetensors':
        return None
    with safe_open(file, 'pt') as opened:
        origin = origin_of(opened.metadata() or {})
    return origin and origin.inputs
