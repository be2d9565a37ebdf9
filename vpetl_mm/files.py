"""Files that are written whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Gives the path to write to; once all is written, it takes the place of ``file``. After an error it is removed.

    A link that lies at that path is removed first: in a folder from a stranger it could lead to any file.
    """
    partial = file.with_name(f'{file.name}.partial')
    partial.unlink(missing_ok=True)
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(file: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(file, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
