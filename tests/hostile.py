"""Files that torch.save never writes, put together from pickle's opcodes."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

ZEROS = b'\0' * 4


def name(dotted: str) -> bytes:
    """A module's function or class."""
    module, _, last = dotted.rpartition('.')
    return f'c{module}\n{last}\n'.encode()


def text(value: str) -> bytes:
    """A string."""
    return b'X' + struct.pack('<I', len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """A whole number."""
    encoded = pickle.encode_long(value)
    return b'\x8a' + bytes([len(encoded)]) + encoded


def several(*parts: bytes) -> bytes:
    """A tuple."""
    return b'(' + b''.join(parts) + b't'


def listed(*parts: bytes) -> bytes:
    """A list."""
    return b'](' + b''.join(parts) + b'e'


def mapping(**parts: bytes) -> bytes:
    """A dict."""
    return b'}(' + b''.join(text(k) + v for k, v in parts.items()) + b'u'


def call(dotted: str, *args: bytes) -> bytes:
    """The result of a function."""
    return name(dotted) + several(*args) + b'R'


def built(thing: bytes, state: bytes) -> bytes:
    """``thing`` after ``__setstate__``."""
    return thing + state + b'b'


def raw(value: bytes) -> bytes:
    """Bytes, as protocol 2 writes them."""
    return call('_codecs.encode', text(value.decode('latin1')), text('latin1'))


def tensor(size: int, stride: int = 1, stored: int = 1, key: str = '0', kind: str = 'FloatStorage') -> bytes:
    """A tensor of one dimension over a record of ``stored`` numbers."""
    storage = several(text('storage'), name(f'torch.{kind}'), text(key), text('cpu'), number(stored)) + b'Q'
    about = several(number(size)), several(number(stride)), b'\x89', call('collections.OrderedDict')
    return call('torch._utils._rebuild_tensor_v2', storage, number(0), *about)


def write(
    path: Path, body: bytes, records: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> Path:
    """A file as torch.save writes it, with any content."""
    with zipfile.ZipFile(path, 'w', method) as file:
        file.writestr('archive/data.pkl', b'\x80\x02' + body + b'.')
        file.writestr('archive/byteorder', 'little')
        for key, data in ({'0': ZEROS} if records is None else records).items():
            file.writestr(f'archive/data/{key}', data)
        file.writestr('archive/version', '3\n')
    return path


def legacy(path: Path, body: bytes, keys: bytes = b']') -> Path:
    """A file as torch.save wrote it before 1.6."""
    magic, version = number(0x1950A86A20F9469CFC6C), number(1001)
    path.write_bytes(b''.join(b'\x80\x02' + part + b'.' for part in (magic, version, b'}', body, keys)))
    return path


def legacy_tensor(stored: int, key: str) -> bytes:
    """A tensor over a storage that such a file names and does not hold."""
    about = name('torch.FloatStorage'), text(key), text('cpu'), number(stored), b'N'
    storage = several(text('storage'), *about) + b'Q'
    hooks = b'\x89', call('collections.OrderedDict')
    shape = several(number(stored)), several(number(1))
    return call('torch._utils._rebuild_tensor_v2', storage, number(0), *shape, *hooks)
