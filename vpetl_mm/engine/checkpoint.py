"""Checkpoints of this project: tensors and plain values, read without running code, and checked before use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.utils import apply_to
from torch import Tensor, nn

from ..errors import UserError, is_line
from ..files import is_plain
from ..weights.contents import format_of, must_be_file
from ..weights.torch_file import read_torch, reason_of

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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read, or what is in another file in the form of one.

    Args:
        file: its path.
        content: as :func:`read_checkpoint` returns it.
        check_base: raises UserError where an initialised model has another base than it was trained on. Defaults to
            None: ``meta.frozen_sha256`` tells.
    """

    file: Path
    content: dict[str, Any] = field(repr=False)
    check_base: Callable[[nn.Module], None] | None = None

    @classmethod
    def of(cls, given: str | Path | Checkpoint) -> Checkpoint:
        """Return ``given`` itself, or the content of the file that it names, as :func:`read_checkpoint` does."""
        return given if isinstance(given, cls) else cls(Path(given), read_checkpoint(given))


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Read an adapter or a full state, with ``weights_only=True``.

    Raises:
        UserError: when it is missing, broken, or not of this project; names the part that is wrong.
    """
    path = Path(file)
    must_be_file(path, 'The checkpoint ')
    try:
        form = format_of(path)
    except UserError as error:
        raise UserError(f'{path} is not a checkpoint: {error}') from error
    if form != 'torch':
        raise UserError(f'{path} is not a checkpoint of this project: it is a file of {form}, not of torch.')
    try:
        content = read_torch(path)
    except Exception as error:
        raise UserError(f'The checkpoint {path} is broken or not safe to read ({reason_of(error)}).') from error
    if not isinstance(content, dict) or not isinstance(content.get('state_dict'), dict):
        raise UserError(f'{path} is not a checkpoint of this project: it has no state_dict.')
    if not isinstance(content.get('meta'), dict) or 'frozen_sha256' not in content['meta']:
        raise UserError(f'{path} is not a checkpoint of this project: it does not say which base it was trained on.')
    _check_meta(path, content['meta'])
    for key, value in content['state_dict'].items():
        if not is_line(key) or not isinstance(value, Tensor):
            raise UserError(f'The checkpoint {path} is broken: {key!r:.80} in its state_dict is not a named tensor.')
    scalars = content['message_hub'].get('log_scalars') if isinstance(content.get('message_hub'), dict) else None
    if isinstance(scalars, dict):
        content['message_hub']['log_scalars'] = {n: history_of(path, n, value) for n, value in scalars.items()}
    return content


def _check_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Refuse a ``meta`` that this project cannot have written."""
    check_types(path, meta, NEEDED | {name: kind for name, kind in OPTIONAL.items() if name in meta}, 'meta.')
    base, classes = meta['base'], meta.get('dataset_meta', {}).get('classes')
    names = classes if isinstance(classes, (list, tuple)) else [classes]  # or the file that lists them
    seed, deltas = meta.get('seed'), meta['deltas']
    by_name = is_plain(deltas) and all(isinstance(d, dict) and all(map(is_line, d)) for d in deltas.values())
    for name, right, what in (
        ('epoch', meta.get('epoch', 0) >= 0, 'a number of epochs'),
        ('iter', meta.get('iter', 0) >= 0, 'a number of steps'),
        ('adapter_format', meta.get('adapter_format', 1) == 1, 'the format 1'),
        ('seed', seed is None or 0 <= seed < 2**32, 'a seed of 32 bits'),
        ('frozen_sha256', _is_sha256(meta['frozen_sha256']), 'a SHA-256'),
        ('base', base is None or (is_line(base.get('file')) and _is_sha256(base.get('sha256'))), 'file and sha256'),
        ('deltas', by_name, 'options by name'),
        ('options', is_plain(meta.get('options')), 'plain values'),
        ('dataset_meta', classes is None or all(isinstance(name, str) for name in names), 'with class names'),
        ('config', 'config' not in meta, 'part of a file of this project'),  # mmengine would run it
    ):
        if not right:
            raise UserError(f'The checkpoint {path} is broken: meta.{name} is {meta[name]!r:.80}, not {what}.')


def check_types(path: Path, content: Mapping[str, Any], types: Mapping[str, Any], where: str = '') -> None:
    """Raise :class:`UserError` for an entry of ``types`` that is missing, or of another type, in ``content``."""
    for name, kind in types.items():
        found = type(content[name]).__name__ if name in content else 'missing'
        if name not in content or not isinstance(content[name], kind) or found == 'bool':
            wanted = f'{kind[0].__name__} or None' if isinstance(kind, tuple) else kind.__name__
            raise UserError(f'The checkpoint {path} is broken: {where}{name} is {found}, not {wanted}.')


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(SHA256.fullmatch(value))


def as_plain(value: Any) -> Any:
    """Return ``value`` with numpy's numbers and arrays, and mmengine's histories, as Python's numbers and lists."""
    return apply_to(value, lambda v: isinstance(v, (HistoryBuffer, np.generic, np.ndarray)), _as_lists)


def _as_lists(value: HistoryBuffer | np.generic | np.ndarray) -> Any:
    if not isinstance(value, HistoryBuffer):
        return value.tolist()
    log, count = value.data
    return dict(log=log.tolist(), count=count.tolist(), max_length=value.max_length)


def history_of(path: Path, name: str, value: Any) -> HistoryBuffer:
    """Return the mmengine history that :func:`as_plain` made lists of; raise :class:`UserError` for others."""
    value = value if isinstance(value, dict) else {}
    lists, length = [value.get('log'), value.get('count')], value.get('max_length')
    whole = all(isinstance(part, list) and all(map(_is_number, part)) for part in lists)
    if not whole or len(lists[0]) != len(lists[1]) or not isinstance(length, int) or not 0 < length < 2**63:
        raise UserError(f'The checkpoint {path} is broken: message_hub.log_scalars.{name!r:.80} is not a history.')
    return HistoryBuffer(*lists, length)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)  # as numpy holds them
