"""Opens bundles of either kind: nothing in them is run, and no size is trusted; needs torch and safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError, reason
from ...files import need_safetensors
from ...weights.contents import format_of, must_be_file
from .header import LONGEST

KEY, PLAIN = 'vpetl_mm_bundle', 'vpetl_mm_plain_bundle'
KINDS = {
    KEY: 'is the bundle of a config: tools/predict.py and tools/adapter.py use it',
    PLAIN: 'is the bundle of a model in plain PyTorch: vpetl_mm.use.plain loads it',
    '': 'holds tensors but is not a bundle; tools/adapter.py pack makes one from a run',
}
TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)


def tensors_of(path: Path, opened: Any) -> dict[str, Tensor]:
    """Return the tensors of an open bundle, which must be finite numbers; else raise :class:`UserError`."""
    content = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
    for name, value in content.items():
        if value.dtype not in TYPES or not value.isfinite().all():
            what = 'numbers that are not finite' if value.dtype in TYPES else str(value.dtype)
            raise UserError(f'{path} cannot be used: {name} holds {what}.')
    return content


@contextmanager
def opened_bundle(path: Path, key: str = KEY) -> Iterator[tuple[Any, str]]:
    """Yield a bundle's open file and its header, which is not checked.

    Args:
        path: of the file.
        key: under which its header is: ``KEY``, of a bundle that a config describes, or ``PLAIN``.

    Raises:
        UserError: when it is missing, broken, no bundle, or one of the other kind.
    """
    need_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        must_be_file(path, 'The bundle ')
        _check_kind(path)
        with safe_open(path, 'pt') as opened:
            texts = opened.metadata() or {}
            if (text := texts.get(key)) is None:
                other = next((what for kind, what in KINDS.items() if kind in texts), None)
                raise UserError(f'{path} {other or KINDS[""]}.')
            yield opened, text
    except SafetensorError as error:
        raise UserError(f'The bundle {path} is broken or cut short ({reason(error)}).') from error
    except OSError as error:
        raise UserError(f'The bundle {path} cannot be read ({error.strerror or error}).') from error


def _check_kind(path: Path) -> None:
    try:
        kind = format_of(path)
    except UserError as error:
        raise UserError(f'{path} is not a bundle: {error}') from error
    if kind != 'safetensors':
        raise UserError(f'{path} is not a bundle but a file of {kind}; tools/adapter.py pack makes one from a run.')
    with path.open('rb') as stream:
        if int.from_bytes(stream.read(8), 'little') > LONGEST:
            raise UserError(f'{path} is not a bundle: its header is longer than {LONGEST:,} bytes.')
