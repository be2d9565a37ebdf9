"""Weights in several .safetensors files, which an index beside them lists."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from safetensors import safe_open

from ..errors import UserError, tellable
from ..files import file_sha256, from_json
from .tensors import StateDict

SUFFIX = '.safetensors.index.json'
NAME = re.compile(r'[A-Za-z0-9_][\w.-]{0,199}\.safetensors', re.ASCII)
LONGEST, MOST = 1 << 24, 1000  # bytes of an index, and files in it


def is_index(file: str | Path) -> bool:
    """Tell whether a path is that of an index, by its name."""
    return Path(file).name.endswith(SUFFIX)


def shards_of(index: str | Path) -> dict[str, str]:
    """Read an index.

    Returns:
        Each tensor's name -> the name of its file, which is in the index's folder.

    Raises:
        UserError: when it is no index, or names a file that is not in its folder.
    """
    path = Path(index)
    if path.stat().st_size > LONGEST:
        raise UserError(f'it is longer than an index of {LONGEST:,} bytes.')
    try:
        content = from_json(path.read_bytes())
    except ValueError as error:
        raise UserError('it is not JSON.') from error
    files = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise UserError('it has no weight_map, which says where each tensor is.')
    for name in {str(name): None for name in files.values()}:
        if not NAME.fullmatch(name):
            raise UserError(f'it names a file {tellable(name)[:80]!r}, which is not one of its own folder.')
    if len({*files.values()}) > MOST:
        raise UserError(f'it names {len({*files.values()}):,} files, more than {MOST:,}.')
    return files


def parts_of(file: str | Path) -> list[Path]:
    """Return the files that weights are in: those that an index lists, or the file itself.

    Raises:
        UserError: as :func:`shards_of`, and for a file that is missing.
    """
    path = Path(file)
    if not is_index(path):
        return [path]
    parts = [path.parent / name for name in sorted({*shards_of(path).values()})]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise UserError(f'{missing[0]}, which it lists, is not beside it.')
    return parts


def read_shards(index: Path) -> StateDict:
    """Read the tensors that an index lists.

    Raises:
        UserError: as :func:`parts_of`, and for a tensor that is not where the index says.
    """
    files, state = shards_of(index), {}
    for part in parts_of(index):
        with safe_open(part, 'pt') as opened:
            there = {*opened.keys()}
            for name in (n for n, f in files.items() if f == part.name):
                if name not in there:
                    raise UserError(f'{part.name} lacks {tellable(name)[:80]}, which the index says is in it.')
                state[name] = opened.get_tensor(name)
    return state


def weights_sha256(file: str | Path) -> str:
    """Return the SHA-256 of a file of weights; of an index, that of the lines ``<SHA-256>  <name>`` of its files."""
    if not is_index(file):
        return file_sha256(file)
    lines = (f'{file_sha256(part)}  {part.name}\n' for part in parts_of(file))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def weights_size(file: str | Path) -> int:
    """Return the bytes that weights take on the disk, in one file or in several."""
    return sum(part.stat().st_size for part in parts_of(file))
