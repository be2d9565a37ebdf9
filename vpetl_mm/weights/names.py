"""A table of names, read both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping


class Names:
    """Translates the beginnings of names by a table; ``#`` stands for a block's number.

    Args:
        pairs: beginning of the authors' name -> of the host's, the more special ones first; what follows a
            beginning, behind a dot, stays.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._forth = [(_pattern(t), o.replace('#', r'\1')) for t, o in pairs.items()]
        self._back = [(_pattern(o), t.replace('#', r'\1')) for t, o in pairs.items()]

    def ours(self, name: str) -> str:
        """The host's name; the name itself where the table has none."""
        return _translated(name, self._forth)

    def theirs(self, name: str) -> str:
        """The authors' name; the name itself where the table has none."""
        return _translated(name, self._back)


def _pattern(beginning: str) -> re.Pattern[str]:
    return re.compile(re.escape(beginning).replace(r'\#', r'(\d+)') + r'(?=\.|$)')


def _translated(name: str, table: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in table:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
