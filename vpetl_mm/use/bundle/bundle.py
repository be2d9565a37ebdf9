"""Bundles: one .safetensors file with what a run trained and everything that its use takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import UserError, reason
from ...spt.allocation import Allocation, allocation_of
from ...weights.contents import format_of, must_be_file
from ...weights.files import write_safetensors
from .about import LONGEST, About, about_of, written

KEY = 'vpetl_mm_bundle'
SPT = 'spt/'  # in front of the names of SPT's single entries, which are no tensors of the model
TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Args:
        file: its path.
        about: its header.
        tensors: what was trained, the head and changed buffers, by their keys in the model.
        allocation: what SPT chose; None without SPT.
    """

    file: Path
    about: About
    tensors: dict[str, Tensor] = field(repr=False)
    allocation: Allocation | None = field(default=None, repr=False)


def write_bundle(
    file: Path, about: About, tensors: Mapping[str, Tensor], entries: Mapping[str, Tensor] | None = None
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        file: its path; a file there is replaced.
        about: its header.
        tensors: by their keys in the model.
        entries: SPT's single entries, by unit.

    Raises:
        UserError: when it cannot be written.
    """
    extra = {f'{SPT}{name}': value for name, value in (entries or {}).items()}
    write_safetensors(file, {**tensors, **extra}, {'format': 'pt', KEY: written(about)})


def read_about(file: str | Path) -> About:
    """Read the header of a bundle.

    Raises:
        UserError: when it is missing, no bundle, of a newer format, or says what no bundle may say.
    """
    with _opened(Path(file)) as (_, text):
        return about_of(text, f'{file} cannot be used')


def read_bundle(file: str | Path) -> Bundle:
    """Read a bundle; nothing in it is run, opened or built.

    Raises:
        UserError: as :func:`read_about`, and for tensors that are not finite numbers.
    """
    path = Path(file)
    with _opened(path) as (opened, text):
        about = about_of(text, f'{path} cannot be used')
        content = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
    for name, value in content.items():
        if value.dtype not in TYPES or not value.isfinite().all():
            what = 'numbers that are not finite' if value.dtype in TYPES else str(value.dtype)
            raise UserError(f'{path} cannot be used: {name} holds {what}.')
    entries = {k.removeprefix(SPT): content.pop(k) for k in list(content) if k.startswith(SPT)}
    return Bundle(path, about, content, _allocation(path, about, entries))


def _allocation(path: Path, about: About, entries: dict[str, Tensor]) -> Allocation | None:
    if about.spt is None:
        if entries:
            raise UserError(f'{path} is broken: it holds single entries of weights, but its header has no SPT.')
        return None
    try:
        return allocation_of(about.spt, entries)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(f'{path} is broken: its SPT choice cannot be read ({reason(error)}).') from error


def is_bundle(file: str | Path) -> bool:
    """Return whether a file is a bundle, of any format."""
    try:
        with _opened(Path(file)):
            return True
    except UserError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """Yield a bundle's open file and its header, which is not checked."""
    try:
        must_be_file(path, 'The bundle ')
        _check_kind(path)
        with safe_open(path, 'pt') as opened:
            text = (opened.metadata() or {}).get(KEY)
            if text is None:
                raise UserError(
                    f'{path} holds tensors but is not a bundle; tools/adapter.py pack makes one from a run.'
                )
            yield opened, text
    except SafetensorError as error:
        raise UserError(f'The bundle {path} is broken or cut short ({reason(error)}).') from error
    except OSError as error:
        raise UserError(f'The bundle {path} cannot be read ({error.strerror or error}).') from error


def _check_kind(path: Path) -> None:
    try:
        kind = format_of(path)
    except UserError as error:
        raise UserError(f'{path} is not a bundle: {error}') from error
    if kind != 'safetensors':
        raise UserError(f'{path} is not a bundle but a file of {kind}; tools/adapter.py pack makes one from a run.')
    with path.open('rb') as stream:
        if int.from_bytes(stream.read(8), 'little') > LONGEST:
            raise UserError(f'{path} is not a bundle: its header is longer than {LONGEST:,} bytes.')
