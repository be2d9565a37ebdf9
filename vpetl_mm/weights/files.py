"""Writes .safetensors files, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..files import written_whole


def write_safetensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of any device, with text for the header, and create the folder if needed.

    Raises:
        UserError: when the file cannot be written.
    """
    # a slice or a transposed view cannot be stored, a copy can
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as partial:
            partial.touch()
            mode = partial.stat().st_mode  # safetensors creates files that only their owner can read
            save_file(whole, partial, dict(metadata))
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise UserError(f'{file} cannot be written: {error}') from error
