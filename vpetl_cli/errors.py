"""The one exception that a command turns into a sentence and exit status 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: its text says what is wrong, where, and what to do."""


def tellable(text: object) -> str:
    """A name fit for any terminal: what is not UTF-8 and control characters are escaped."""
    text = str(text).encode('utf-8', 'backslashreplace').decode()
    return re.sub(r'[\x00-\x1f\x7f-\x9f]', lambda found: f'\\x{ord(found[0]):02x}', text)


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """A :class:`UserError` for a name that does not exist, with the valid ones and the nearest.

    Args:
        what: the kind of thing, such as ``'train name'``.
        name: what was asked for.
        valid: the names that exist.
    """
    valid = sorted(valid)
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    return UserError(f'Unknown {what} {name!r}; valid: {", ".join(valid)}.{hint}')
