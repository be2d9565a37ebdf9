"""Files that are written whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import UserError, is_line, tellable


@contextmanager
def written_whole(file: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to, which replaces ``file`` at the end; after an error it is removed.

    A link at that path is removed first: in a stranger's folder it could lead to any file.

    Args:
        file: what is written.
        shared: whether other processes may be writing it as well; the last one to end wins. Defaults to False.
    """
    partial = file.with_name(f'{file.name}.{os.getpid()}.partial' if shared else f'{file.name}.partial')
    partial.unlink(missing_ok=True)
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def need_safetensors() -> None:
    """Raise :class:`UserError` where safetensors, in whose form tensors are kept in files, is not installed."""
    if find_spec('safetensors') is None:
        raise UserError('Files of tensors need one package more than torch: pip install safetensors.')


def check_new(path: str | Path) -> None:
    """Raise :class:`UserError` if something is at this path already, or its folder does not exist."""
    if os.path.lexists(path):
        raise UserError(f'{path} exists: give a new name.')
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f'{path} cannot be written: its folder does not exist.')


def size_of(file: str | Path) -> str:
    """Return the size of a file as text, such as ``'26.1 MB'``."""
    return f'{Path(file).stat().st_size / 1e6:,.1f} MB'


def from_json(text: str | bytes, **options: Any) -> Any:
    """Return what JSON text holds; ``options`` are those of :func:`json.loads`.

    Raises:
        ValueError: where it is not JSON, or is nested too deeply to read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def read_start(file: Path, most: int) -> str:
    """Return at most ``most`` bytes of a file's beginning as text; of a pipe or a device, nothing is read.

    Raises:
        OSError: when it cannot be read.
        UnicodeDecodeError: when it is not UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    with open(file, 'rb') as stream:
        return stream.read(most).decode()


def is_plain(value: Any) -> bool:
    """Return whether a value is text, a number or None, or made of these in lists and dicts."""
    if isinstance(value, dict):
        return all((is_line(key) or type(key) is int) and is_plain(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, int, float))


@contextmanager
def os_errors_explained() -> Iterator[None]:
    """Turn an error of the file system into a :class:`UserError` that names the file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f'{tellable(error.filename)}: ' if error.filename else ''
        raise UserError(f'{where}{error.strerror or error}.') from error


def file_sha256(file: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(file, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
