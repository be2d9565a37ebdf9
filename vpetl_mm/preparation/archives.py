"""Unpacks tar, zip and rar archives that are not trusted: every entry is checked before the first is written."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import rarfile

from ..bounds import TIMES, most_bytes
from ..errors import UserError, reason, tellable
from .lists import check_path
from .progress import progress
from .tar_reader import CHUNK, bounded_tar

SUFFIXES = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz', '.zip', '.rar')
ENTRY = 64  # least bytes of an archive per entry, if it has more than 10,000 of them
RAR_TOOLS = 'unrar, unar, 7z or bsdtar'
# what the libraries raise on damage; gzip raises an OSError without a number
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, rarfile.Error, EOFError, zlib.error, lzma.LZMAError)
DAMAGE += (RuntimeError, ValueError, OverflowError, IndexError, struct.error)


class Member(NamedTuple):
    """A file in an archive: its name, its unpacked size, and the library's handle of it."""

    name: str
    size: int
    handle: Any


Opened = tuple[list[Member], Callable[[Any], IO[bytes]]]


def is_archive(path: Path) -> bool:
    """Check that a name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def _check_entry(name: str, regular: bool, folder: bool) -> None:
    plain = name.rstrip('/') if folder else name
    if plain.startswith('/') or re.match('[A-Za-z]:', plain) or '\\' in plain or '..' in plain.split('/'):
        raise UserError(f"its entry '{tellable(name)[:200]}' would land outside of the target")
    if not (regular or folder):
        raise UserError(f"its entry '{tellable(name)[:200]}' is a link or a device, not a plain file")


def _check_count(count: int, size: int) -> None:
    most = min(500_000, max(10_000, size // ENTRY))
    if count > most:
        raise UserError(f'it has more than {most:,} entries')


def _checked(entries: list[Member], size: int) -> list[Member]:
    """Return the entries of an archive of ``size`` bytes; refuse those that promise too much."""
    _check_count(len(entries), size)
    total = sum(e.size for e in entries)
    if total > most_bytes(size):
        raise UserError(f'it takes {total / 1e9:.1f} GB unpacked, more than {TIMES} times its own size')
    return entries


@contextmanager
def _tar(archive: Path) -> Iterator[Opened]:
    size = archive.stat().st_size
    with bounded_tar(archive, most_bytes(size)) as (tar, found):
        members = []
        for member in found:
            _check_entry(member.name, member.isreg(), member.isdir())
            members.append(member)
            _check_count(len(members), size)
        # tarfile accepts a file that was cut between two entries, which lacks the end mark
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError('its end is missing')
        while tar.fileobj.read(CHUNK):  # to the end, where gzip's checksum is
            pass
        yield _checked([Member(m.name, m.size, m) for m in members if m.isreg()], size), tar.extractfile


@contextmanager
def _zip(archive: Path) -> Iterator[Opened]:
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.infolist()
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            # the stored name: zipfile itself cuts at a zero byte and turns separators round
            _check_entry(entry.orig_filename, kind in (0, stat.S_IFREG), entry.is_dir())
        files = [Member(e.filename, e.file_size, e) for e in entries if not e.is_dir()]
        yield _checked(files, archive.stat().st_size), zipped.open


@contextmanager
def _rar(archive: Path) -> Iterator[Opened]:
    size = archive.stat().st_size
    with rarfile.RarFile(archive, errors='strict') as rar:
        entries = rar.infolist()
        for entry in entries:
            _check_entry(entry.filename, entry.is_file(), entry.is_dir())
            if len(rar.volumelist()) == 1 and entry.data_offset + entry.compress_size > size:
                raise EOFError(f'{entry.filename} ends beyond the file')
        if any(e.is_file() and e.compress_type != rarfile.RAR_M0 for e in entries):
            try:
                rarfile.tool_setup()
            except rarfile.RarCannotExec:
                raise UserError(f'it needs a program that decompresses rar: install {RAR_TOOLS}') from None
        volumes = sum(os.path.getsize(volume) for volume in rar.volumelist())
        yield _checked([Member(e.filename, e.file_size, e) for e in entries if e.is_file()], volumes), rar.open


@contextmanager
def _opened(archive: Path) -> Iterator[Opened]:
    """Yield the checked entries of an archive; damage, even if found later, raises a UserError."""
    if not archive.is_file():
        raise UserError(f'{archive} does not exist.')
    name = archive.name.lower()
    library = _rar if name.endswith('.rar') else _zip if name.endswith('.zip') else _tar
    try:
        with library(archive) as opened:
            yield opened
    except UserError as error:
        raise UserError(f'{archive} is refused: {str(error).rstrip(".")}.') from error
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # bsdtar, for one, cannot read solid archives
        other = '; if the file is whole, install unar or unrar' if library is _rar else ''
        raise UserError(f'{archive} is truncated or damaged ({reason(error)}); download it again{other}.') from error


def _same(path: Path, size: int, time: int) -> bool:
    with suppress(OSError):
        about = path.lstat()
        return stat.S_ISREG(about.st_mode) and (about.st_size, about.st_mtime_ns) == (size, time)
    return False


def _linked(earlier: Path, path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
        os.link(earlier, path)
    except OSError:  # some file systems have no hard links
        return False
    return True


def _copy(source: IO[bytes], path: Path, size: int, advance: Callable[[int], None]) -> None:
    left = size
    with source, open(path, 'wb') as stream:
        while left >= 0 and (chunk := source.read(CHUNK)):
            left -= len(chunk)
            stream.write(chunk)
            advance(len(chunk))
    if left:
        raise EOFError(f'{path.name} does not have its {size} bytes')


def _placed(entries: list[Member], place: Callable[[str], str | None]) -> dict[str, Member]:
    """Map each wanted path below the target to its entry."""
    wanted: dict[str, Member] = {}
    for name, entry in ((place(str(PurePosixPath(entry.name))), entry) for entry in entries):
        if name is None:
            continue
        check_path(name, 'its entries')
        if name in wanted:
            raise UserError(f'it has {name!r} twice')
        wanted[name] = entry
    return wanted


def unpack(archive: Path, target: Path, place: Callable[[str], str | None], earlier: Path | None = None) -> list[str]:
    """Unpack the wanted files of an archive, except those that an earlier call has finished.

    A finished file is known by its size and by its time, which is that of its archive.

    Args:
        archive: tar (plain, gz, bz2, xz), zip or rar, by its suffix.
        target: the folder to write below.
        place: maps an entry's name to its path below the target; None leaves it out.
        earlier: a folder like the target from an earlier call, whose files are hard-linked. Defaults to None.

    Returns:
        the paths below the target, in the archive's order.

    Raises:
        UserError: if the archive is damaged or truncated, has an entry that is not a plain file or folder or would
            land outside of the target, has more entries or bytes than :mod:`vpetl_mm.bounds` allows, or does not fit
            on the disk. Nothing has been written then, unless compressed data are damaged.
    """
    time = archive.stat().st_mtime_ns if archive.is_file() else 0
    with _opened(archive) as (entries, open_entry):
        wanted = _placed(entries, place)
        todo = {n: e for n, e in wanted.items() if not _same(target / n, e.size, time)}
        there = {n for n, e in todo.items() if earlier and _same(earlier / n, e.size, time)}
        target.mkdir(parents=True, exist_ok=True)
        total = sum(e.size for n, e in todo.items() if n not in there)
        free = shutil.disk_usage(target).free
        if total > free:
            raise UserError(f'it takes {total / 1e9:.1f} GB unpacked, and {target} has {free / 1e9:.1f} GB left')
        with progress(f'Unpacking {archive.name}', sum(e.size for e in todo.values())) as advance:
            for name, entry in todo.items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name in there and _linked(earlier / name, path):
                    advance(entry.size)
                    continue
                _copy(open_entry(entry.handle), path, entry.size, advance)
                os.utime(path, ns=(time, time))
    return list(wanted)
