"""Writes the manifest: path, size and, if wanted, SHA-256 of every file of a data set."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ..files import file_sha256
from .progress import progress


def sizes(root: Path, paths: Iterable[str]) -> dict[str, int]:
    """Return the size in bytes of each of ``paths`` below ``root`` that is a file, in the given order."""
    paths = list(paths)
    found: dict[str, int] = {}
    with progress('Looking for the files', len(paths)) as advance:
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                about = os.stat(os.path.join(root, path))
                if stat.S_ISREG(about.st_mode):
                    found[path] = about.st_size
            advance(1)
    return found


def write_manifest(
    path: Path, files: dict[str, int], locate: Callable[[str], Path], sha256: bool, workers: int
) -> None:
    """Write ``path,size,sha256`` lines below a header; the sum stays empty unless it is wanted.

    Args:
        path: the CSV file.
        files: size in bytes by name.
        locate: returns the path of a name.
        sha256: compute the sums, which reads every file.
        workers: threads that compute them.
    """
    bar = progress('Writing the manifest', sum(files.values()))
    # threads, as hashing and reading release Python's lock
    with open(path, 'w', encoding='utf-8', newline='') as stream, ThreadPoolExecutor(workers) as pool, bar as advance:
        rows = csv.writer(stream, lineterminator='\n')
        rows.writerow(('path', 'size', 'sha256'))
        sums = pool.map(file_sha256, map(locate, files)) if sha256 else [''] * len(files)
        for (name, size), digest in zip(files.items(), sums, strict=True):
            rows.writerow((name, size, digest))
            advance(size)
