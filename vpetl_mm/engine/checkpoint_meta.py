"""What a checkpoint says of itself, its ``meta``: every entry is checked before one is believed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, is_line

NONE = type(None)
NEEDED = {'frozen_sha256': str, 'deltas': dict, 'base': (dict, NONE)}
# older files lack some
OPTIONAL = {
    'adapter_format': int,
    'cfg': str,
    'dataset_meta': dict,
    'epoch': int,
    'experiment_name': str,
    'iter': int,
    'mmengine_version': str,
    'options': dict,
    'seed': (int, NONE),
    'time': str,
}
SHA256 = re.compile(r'[0-9a-f]{64}')


def check_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Refuse a ``meta`` that this project cannot have written.

    Raises:
        UserError: naming the entry.
    """
    check_parts(path, meta, NEEDED | {name: kind for name, kind in OPTIONAL.items() if name in meta}, 'meta.')
    base, classes = meta['base'], meta.get('dataset_meta', {}).get('classes')
    seed, deltas = meta.get('seed'), meta['deltas']
    for name, right, what in (
        ('epoch', meta.get('epoch', 0) >= 0, 'a number of epochs'),
        ('iter', meta.get('iter', 0) >= 0, 'a number of steps'),
        ('adapter_format', meta.get('adapter_format', 1) == 1, 'the format 1'),
        ('seed', seed is None or 0 <= seed < 2**32, 'a seed of 32 bits'),
        ('frozen_sha256', _is_sha256(meta['frozen_sha256']), 'a SHA-256'),
        ('base', base is None or (is_line(base.get('file')) and _is_sha256(base.get('sha256'))), 'file and sha256'),
        ('deltas', is_plain(deltas) and all(map(_are_options, deltas.values())), 'options by name'),
        ('options', is_plain(meta.get('options')), 'plain values'),
        ('dataset_meta', _are_names(classes), 'with class names'),
        ('config', 'config' not in meta, 'part of a file of this project'),  # mmengine would run it
    ):
        if not right:
            raise UserError(f'The checkpoint {path} is broken: meta.{name} is {meta[name]!r:.80}, not {what}.')


def check_parts(path: Path, content: Mapping[str, Any], parts: Mapping[str, Any], where: str = '') -> None:
    """Refuse a dict in which a part is missing or of another type than ``parts`` says.

    Raises:
        UserError: naming the part as ``where`` and its name.
    """
    for name, kind in parts.items():
        found = type(content[name]).__name__ if name in content else 'missing'
        if name not in content or not isinstance(content[name], kind) or found == 'bool':
            wanted = f'{kind[0].__name__} or None' if isinstance(kind, tuple) else kind.__name__
            raise UserError(f'The checkpoint {path} is broken: {where}{name} is {found}, not {wanted}.')


def is_plain(value: Any) -> bool:
    """Whether a value is text, a number or None, or made of such in lists and dicts."""
    if isinstance(value, dict):
        return all((is_line(key) or type(key) is int) and is_plain(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(SHA256.fullmatch(value))


def _are_options(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_line, value))


def _are_names(classes: Any) -> bool:
    """Whether these are names, or the file that has them, or none."""
    names = classes if isinstance(classes, (list, tuple)) else [classes]
    return classes is None or all(isinstance(name, str) for name in names)
