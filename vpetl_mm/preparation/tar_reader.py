"""Reads a tar that is not trusted: tarfile alone takes as much memory and time as the headers ask for."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..bounds import TIMES
from ..errors import UserError

CHUNK = 1 << 20
HEADER = 64 << 10  # bytes of an entry's headers, with long names and extended attributes
DECOMPRESSORS = {b'\x1f\x8b': gzip.open, b'BZ': bz2.open, b'\xfd7': lzma.open}


class _Bounded:
    """A tar's decompressed content, refused beyond ``most`` bytes, as tarfile reads as much as a header asks for."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.most = stream, most
        self.left: float = HEADER  # for the next entry's headers

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise UserError(f'the headers of an entry take more than {HEADER >> 10} kB')
        content = self.stream.read(size)
        self._check(self.stream.tell())
        return content

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()

    def _check(self, offset: int) -> None:
        if offset > self.most:
            raise UserError(f'it takes more than {self.most / 1e9:.1f} GB unpacked, {TIMES} times its own size')


@contextmanager
def bounded_tar(archive: Path, most: int) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """Open a tar, plain or compressed; yield it and its entries, which are read one by one.

    Raises:
        UserError: for longer headers than archives have, or more bytes than ``most``.
        Exception: of many kinds, if it is damaged.
    """
    with open(archive, 'rb') as packed:
        opener = DECOMPRESSORS.get(packed.read(2), open)
    with opener(archive, 'rb') as stream:
        bounded = _Bounded(stream, most)
        with tarfile.open(fileobj=bounded, mode='r:') as tar:
            yield tar, _entries(tar, bounded)


def _entries(tar: tarfile.TarFile, bounded: _Bounded) -> Iterator[tarfile.TarInfo]:
    for entry in tar:
        if entry.size < 0 or len(tar.pax_headers) > 100:
            raise UserError('it has headers that no archive needs')
        entry.pax_headers = {}  # a copy of all global headers
        yield entry
        bounded.left = HEADER
    bounded.left = math.inf
