"""Small data sets as they are downloaded, built by hand, and the command that prepares them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from scipy.io import savemat

import tools
from vpetl_mm.datasets.cifar100 import PETLCIFAR100

REPO = Path(__file__).parents[1]
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


def put_all(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write several files; the folder."""
    for name, content in files.items():
        put(folder / name, content)
    return folder


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


CIFAR_NAMES = [f'class {i}' for i in range(100)]


def cifar_files(train=20, test=5, protocol: int = 2, names: list[str] = CIFAR_NAMES) -> dict[str, bytes]:
    """CIFAR-100's three pickles; each split is a number of random images, or images [N, 32, 32, 3] and labels."""
    rng = np.random.default_rng(0)
    files = {'meta': {'fine_label_names': names}}
    for name, split in (('train', train), ('test', test)):
        count = split if isinstance(split, int) else 0
        drawn = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), [i % 100 for i in range(count)]
        images, labels = drawn if count else split
        rows = np.array(images).transpose(0, 3, 1, 2).reshape(-1, 3072)  # a row: all red, all green, all blue
        files[name] = dict(data=rows, fine_labels=[int(label) for label in labels], filenames=['x'])
    return {f'cifar-100-python/{n}': pickle.dumps(c, protocol) for n, c in files.items()}


def make_official(monkeypatch, files: dict[str, bytes]) -> None:
    """Let the md5 sums of CIFAR-100 be those of these files."""
    for split in ('train', 'test'):
        md5 = hashlib.md5(files[f'cifar-100-python/{split}']).hexdigest()
        monkeypatch.setattr(PETLCIFAR100, f'{split}_list', [[split, md5]])


def write_svhn(folder: Path, split: str, images: np.ndarray, labels=range(1, 11)) -> None:
    """A .mat file of SVHN with images [N, 32, 32, 3]; the labels are repeated as needed."""
    labels = np.resize(np.array(labels, np.uint8), (len(images), 1))
    folder.mkdir(exist_ok=True)
    content = dict(X=np.array(images).transpose(1, 2, 3, 0), y=labels)
    savemat(folder / f'{split}_32x32.mat', content, do_compression=True)
