"""Tables of names that translate in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping


class Names:
    """A table of the beginnings of names; ``#`` stands for a block's number.

    Args:
        pairs: beginning of the authors' name -> of the host's, the more specific ones first; the rest of a name,
            from the next dot on, stays.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._forth = [(_pattern(t), o.replace('#', r'\1')) for t, o in pairs.items()]
        self._back = [(_pattern(o), t.replace('#', r'\1')) for t, o in pairs.items()]

    def ours(self, name: str) -> str:
        """Return the host's name, or ``name`` itself if it is not in the table."""
        return _translated(name, self._forth)

    def theirs(self, name: str) -> str:
        """Return the authors' name, or ``name`` itself if it is not in the table."""
        return _translated(name, self._back)


def _pattern(beginning: str) -> re.Pattern[str]:
    return re.compile(re.escape(beginning).replace(r'\#', r'(\d+)') + r'(?=\.|$)')


def _translated(name: str, table: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in table:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
