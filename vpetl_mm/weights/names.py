"""Tables of names that translate in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping


class Names:
    """A table of the beginnings of names; ``#`` stands for a block's number.

    Args:
        pairs: beginning of the authors' name -> of the host's, the more specific ones first; the rest of a name,
            from the next dot on, stays.

    Attributes:
        ours, theirs: translate a name into the host's, or the authors'; one that is not in the table stays.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.ours = _translation(pairs.items())
        self.theirs = _translation((ours, theirs) for theirs, ours in pairs.items())


def _translation(pairs: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    table = [(re.escape(a).replace(r'\#', r'(\d+)') + r'(?=\.|$)', b.replace('#', r'\1')) for a, b in pairs]

    def translate(name: str) -> str:
        replacements = (re.subn(rf'^{pattern}', to, name) for pattern, to in table)
        return next((new for new, found in replacements if found), name)

    return translate
