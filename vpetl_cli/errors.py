"""The exception that a command turns into a sentence and exit status 2, and helpers for its text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can mend: its text says what is wrong, where, and what to do."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """Return a :class:`UserError` for a name that is not valid for ``what``, with the valid names and the nearest."""
    valid = sorted(valid)
    return UserError(f'Unknown {what} {name!r}; valid: {", ".join(valid)}.{did_you_mean(name, valid)}')


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the nearest valid name, or an empty string if none is near."""
    near = difflib.get_close_matches(str(name), [*valid], n=1)
    return f' Did you mean {near[0]!r}?' if near else ''


def reason(error: BaseException, most: int = 200) -> str:
    """Return a library's error on one line of at most ``most`` characters; its type where it has no text."""
    return (' '.join(str(error).split()) or type(error).__name__)[:most]


def tellable(text: object) -> str:
    """Return text on one line, safe for any terminal: unprintable characters and what is not UTF-8 are escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in str(text))


def shortened(text: object, most: int, end: bool = False) -> str:
    """Return text as :func:`tellable` does, cut to ``most`` characters: its beginning, or its ``end``."""
    text = str(text)
    text = tellable(text[-4 * most :] if end else text[: 4 * most])  # of megabytes, little is looked at
    if len(text) <= most:
        return text
    return f'…{text[1 - most :]}' if end else f'{text[: most - 1]}…'


def is_line(value: object) -> bool:
    """Return whether a value is text on one line without control characters."""
    return isinstance(value, str) and value.isprintable()
