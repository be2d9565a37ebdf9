"""Lists of ``path label`` lines, which the host libraries read without a word on what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError


def read_list(file: str | Path, num_classes: int | None, delimiter: str = ' ') -> list[tuple[str, int]]:
    """The path and the label of each line.

    Args:
        file: the list; names may contain the delimiter, the label is what follows the last one.
        num_classes: labels must lie in [0, num_classes); None sets no upper limit.
        delimiter: between path and label.

    Raises:
        UserError: for a list that is missing or empty, a line without a label, or a label outside the classes.
    """
    if not Path(file).is_file():
        raise UserError(f'The annotation file {file} does not exist.')
    lines = Path(file).read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
    found = []
    for number, line in enumerate(map(str.strip, lines), 1):
        path, _, label = line.rpartition(delimiter)
        where = f'{file}, line {number}'
        if line and (not path or '\0' in path or not re.fullmatch('-?[0-9]{1,9}', label)):
            raise UserError(f'{where} has no label: {line!r}; a line is "path{delimiter}label".')
        if line and (int(label) < 0 or (num_classes is not None and int(label) >= num_classes)):
            last = 'n' if num_classes is None else num_classes - 1
            raise UserError(f'{where}: label {label} is outside the classes 0 to {last} (num_classes).')
        if line:
            found.append((path.strip(), int(label)))
    if not found:
        raise UserError(f'The annotation file {file} is empty.')
    return found
