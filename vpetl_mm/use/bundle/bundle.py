"""Bundles: one .safetensors file with what a run trained and everything that its use takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ...errors import UserError, reason
from ...spt.allocation import Allocation, allocation_of
from ...weights.files import write_safetensors
from .about import About, about_of, written
from .opening import KEY, opened_bundle, tensors_of

SPT = 'spt/'  # in front of the names of SPT's single entries, which are no tensors of the model


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
    with opened_bundle(Path(file)) as (_, text):
        return about_of(text, f'{file} cannot be used')


def read_bundle(file: str | Path) -> Bundle:
    """Read a bundle; nothing in it is run, opened or built.

    Raises:
        UserError: as :func:`read_about`, and for tensors that are not finite numbers.
    """
    path = Path(file)
    with opened_bundle(path) as (opened, text):
        about = about_of(text, f'{path} cannot be used')
        content = tensors_of(path, opened)
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
        with opened_bundle(Path(file)):
            return True
    except UserError:
        return False
