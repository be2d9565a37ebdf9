"""What a run logs in numbers: the lines of mmengine's ``vis_data/scalars.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import from_json


def read_scalars(log: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number, from 1, and its scalars by name; a last line that a kill cut short is left out.

    Raises:
        UserError: for a corrupt log.
    """
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            scalars = from_json(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise UserError(f'The log {log} is corrupt in line {number} ({error}).') from error
        if isinstance(scalars, dict):
            yield number, scalars
