"""How much a compressed file may hold: what it says itself is not trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .errors import UserError

TIMES, LEAST = 100, 64 << 20


def most_bytes(size: int) -> int:
    """The most bytes that a compressed file of ``size`` bytes may unpack to.

    It is 100 times its own size, or 64 MiB for small files. Images, videos and arrays take a few times their
    compressed size; bombs take a thousand times and more.
    """
    return max(LEAST, TIMES * size)


def check_zip(file: Path, most: int) -> None:
    """Refuse a zip archive that states more than ``most`` bytes for its entries; zipfile reads no more.

    Raises:
        UserError: with both sizes.
        BadZipFile: when it is none.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > most:
        raise UserError(f'it would unpack to {unpacked:,} bytes, and the file has {file.stat().st_size:,}')
