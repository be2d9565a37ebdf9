"""Predictions as lines for people."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size

from ...errors import tellable

MOST_CELLS = 48  # of a name


def line_of(result: dict[str, Any], inputs: int, names: int, width: int | None) -> str:
    """Return a prediction on one line: the input and the likeliest classes, in columns.

    Args:
        result: of :meth:`Prediction.as_dict`.
        inputs: width of the column of inputs, in cells of a terminal.
        names: width of the column of class names.
        width: of the terminal, beyond which the less likely classes are left out; None keeps them all.
    """
    line = column(result['input'], inputs)
    for place, entry in enumerate(result['topk']):
        more = f'  {entry["probability"]:7.2%}  {column(entry["name"], names)}'
        if width and place and cell_len(line + more) > width:
            break
        line += more
    return line.rstrip()


def column(text: str, cells: int) -> str:
    """Return text in exactly ``cells`` cells of a terminal; a longer text keeps its end."""
    text = tellable(text)
    if cell_len(text) > cells:
        while cell_len(text) > cells - 1:
            text = text[1:]
        text = f'…{text}'
    return set_cell_size(text, cells)


def widths(inputs: Sequence[str], classes: Sequence[str]) -> tuple[int, int]:
    """Return the widths of the two columns of :func:`line_of`."""
    longest = (max((cell_len(tellable(text)) for text in texts), default=1) for texts in (inputs, classes))
    return tuple(min(MOST_CELLS, cells) for cells in longest)


def terminal_width(stream: TextIO) -> int | None:
    """Return the width of the terminal that a stream is; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None
