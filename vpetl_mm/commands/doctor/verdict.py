"""What a check of an experiment says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import tellable

OK, NOTE, WRONG = 'ok', 'note', 'WRONG'
SHOWN = 5  # of many things that are wrong in the same way


class Verdict(NamedTuple):
    """What one check found.

    Args:
        check: its name, such as ``'labels'``.
        state: ``OK``, ``NOTE`` (worth knowing) or ``WRONG``.
        said: the finding, without a full stop.
        details: further lines, such as names. Defaults to none.
    """

    check: str
    state: str
    said: str
    details: Sequence[str] = ()

    def lines(self) -> str:
        """Return the verdict as it is printed: one line, and one for each detail."""
        first = f'{self.state:5}  {self.check:13}  {tellable(self.said)}'
        return '\n'.join([first, *(f'{"":7}- {tellable(line)}' for line in self.details)])


def some(lines: Sequence[str], most: int = SHOWN) -> list[str]:
    """Return the first lines, and how many more there are."""
    return [*lines[:most], *([f'and {len(lines) - most:,} more'] if len(lines) > most else [])]


def worst(wrong: object, noted: object = None) -> str:
    """Return ``WRONG`` where something is wrong, ``NOTE`` where something is worth knowing, else ``OK``."""
    return WRONG if wrong else NOTE if noted else OK
