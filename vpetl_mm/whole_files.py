"""Files that are written whole or not at all."""

from __future__ import annotations

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
