"""Small trees in the official layouts, built by hand, and the command itself."""

from __future__ import annotations

import io
import json
import stat
import struct
import tarfile
import zlib
from pathlib import Path

import tools

REPO = Path(__file__).parents[2]
REAL = REPO.parent / 'shared/data'


def call(*argv: object) -> int:
    """Run tools/prepare_data.py in this process; its exit status."""
    return tools.call('prepare_data', *argv)


def snapshot(*folders: Path) -> dict[str, object]:
    """Every path below, and what it holds or leads to."""
    found: dict[str, object] = {}
    for folder in folders:
        for path in sorted(folder.rglob('*')):
            link = path.readlink() if path.is_symlink() else None
            found[str(path)] = link or (path.read_bytes() if path.is_file() else None)
    return found


def put(path: Path, content: str | bytes = b'media') -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path) -> list[str]:
    """The lines of a file."""
    return path.read_text().splitlines()


def tar(path: Path, files: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """An archive with these files; a TarInfo is an entry without content."""
    with tarfile.open(path, 'w:gz' if path.name.endswith('gz') else 'w') as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def _block(kind: int, flags: int, body: bytes) -> bytes:
    header = struct.pack('<BHH', kind, flags, 7 + len(body)) + body
    return struct.pack('<H', zlib.crc32(header) & 0xFFFF) + header


def rar(
    path: Path, files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644, method: int = 0x30, promised: int = 0
) -> Path:
    """A RAR 3 archive made on Unix with stored entries, after the published description of the format."""
    parts = [b'Rar!\x1a\x07\x00', _block(0x73, 0, bytes(6))]
    for name, content in files.items():
        size = len(content)
        body = struct.pack(
            '<IIBIIBBHI', size, promised or size, 3, zlib.crc32(content), 0, 29, method, len(name.encode()), mode
        )
        parts += [_block(0x74, 0x8000, body + name.encode()), content]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b''.join([*parts, _block(0x7B, 0x4000, b'')]))
    return path


SSV2_LABELS = {'Closing something': '0', 'Opening something': '1', 'Moving something and something away': '2'}
SSV2_TEMPLATES = ('Closing [something]', 'Opening [something]', 'Moving [something] and [something] away')


def ssv2(src: Path, train: int = 20, validation: int = 6, prefix: str = 'something-something-v2-') -> Path:
    """Something-Something v2 as it is downloaded."""
    entries = [dict(id=str(100 + i), label='x', template=SSV2_TEMPLATES[i % 3]) for i in range(train + validation)]
    put(src / f'{prefix}labels.json', json.dumps(SSV2_LABELS))
    put(src / f'{prefix}train.json', json.dumps(entries[:train]))
    put(src / f'{prefix}validation.json', json.dumps(entries[train:]))
    for entry in entries:
        put(src / f'20bn-something-something-v2/{entry["id"]}.webm', entry['id'])
    return src
