"""Tells what a file is from its first bytes: its name may say anything."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..errors import UserError

# how a file without weights starts -> what it is, and what to do
STARTS = {
    b'version https://git-lfs.github.com/spec/': 'is a Git LFS pointer, not the file itself: git lfs pull',
    b'\x1f\x8b': 'is compressed with gzip: unpack it (tar -xzf, or gunzip)',
    b'BZh': 'is compressed with bzip2: unpack it (tar -xjf, or bunzip2)',
    b'\xfd7zXZ\x00': 'is compressed with xz: unpack it (tar -xJf, or unxz)',
    b'\x28\xb5\x2f\xfd': 'is compressed with zstd: unpack it (unzstd)',
    b'7z\xbc\xaf\x27\x1c': 'is a 7z archive: unpack it',
    b'\x89HDF\r\n': 'is an HDF5 file (as written by Keras), which is not supported',
}
LONGEST_HEADER = 100_000_000  # of a .safetensors file, by its own rules
TEXT = {*range(32, 127), *b'\t\n\r'}
SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.npz', '.ckpt', '.tar')


def format_of(path: Path) -> str:
    """Return ``'safetensors'``, ``'npz'`` or, for everything else that may hold weights, ``'torch'``.

    Raises:
        UserError: for a file that cannot hold weights.
    """
    with path.open('rb') as stream:
        start = stream.read(512)
    for magic, what in STARTS.items():
        if start.startswith(magic):
            raise UserError(f'it {what}.')
    if not start:
        raise UserError('it is empty.')
    if start[257:262] == b'ustar':
        raise UserError('it is a tar archive: unpack it (tar -xf).')
    if start.startswith(b'PK'):
        return _format_of_zip(path)
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < LONGEST_HEADER:
        return 'safetensors'
    if start.lstrip().startswith(b'<'):
        raise UserError('it is a web page (HTML or XML) that a server sent instead of the file: download it again.')
    if all(byte in TEXT for byte in start):
        raise UserError(f'it is text, not weights: {" ".join(start.decode().split())[:60]!r}.')
    return 'torch'


def _format_of_zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):  # truncated: the reader will say so
        return 'npz' if path.suffix.lower() == '.npz' else 'torch'
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.rpartition('/')[2] == 'data.pkl' for name in names):
        return 'torch'
    if all(name.endswith('.npy') for name in names):
        return 'npz'
    raise UserError(f'it is a zip archive of other files ({", ".join(map(repr, names[:3]))}): unpack it.')


def must_be_file(path: Path, what: str = '') -> None:
    """Check that ``path`` is a file; ``what`` begins the error's sentence, such as ``'The checkpoint '``.

    Raises:
        UserError: for a folder, listing the weights in it, and for a path that does not exist.
    """
    if path.is_dir():
        inside = [str(p) for p in sorted(path.iterdir()) if p.suffix in SUFFIXES and p.is_file()]
        more = ', ...' if len(inside) > 3 else ''
        hint = f'; it holds {", ".join(inside[:3])}{more}: name a file' if inside else ''
        raise UserError(f'{path} is a folder{hint}.')
    if not path.is_file():
        raise UserError(f'{what}{path} does not exist.')
