"""Limits on what a compressed file may unpack to: the sizes that it states are not trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .errors import UserError

TIMES, LEAST = 100, 64 << 20


def most_bytes(size: int) -> int:
    """Return the most bytes that a compressed file of ``size`` bytes may unpack to.

    It is 100 times its own size, or 64 MiB for small files. Images, videos and arrays take a few times their
    compressed size; bombs take a thousand times and more.
    """
    return max(LEAST, TIMES * size)


def check_zip(file: Path, most: int) -> None:
    """Refuse a zip archive whose entries state more than ``most`` bytes in all; zipfile reads no more than stated.

    Raises:
        UserError: with both sizes.
        BadZipFile: if the file is not a zip archive.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > most:
        raise UserError(f'it would unpack to {unpacked:,} bytes, and the file has {file.stat().st_size:,}')
