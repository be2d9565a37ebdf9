"""The one exception that a command turns into a sentence and exit status 2, and what its sentences are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: its text says what is wrong, where, and what to do."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """A :class:`UserError` for a name that does not exist, with the valid ones and the nearest.

    Args:
        what: the kind of thing, such as ``'train name'``.
        name: what was asked for.
        valid: the names that exist.
    """
    valid = sorted(valid)
    return UserError(f'Unknown {what} {name!r}; valid: {", ".join(valid)}.{did_you_mean(name, valid)}')


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """A question with the valid name that is nearest, to follow a sentence; empty where none is near."""
    near = difflib.get_close_matches(str(name), [*valid], n=1)
    return f' Did you mean {near[0]!r}?' if near else ''


def reason(error: BaseException, most: int = 200) -> str:
    """Return a library's error on one line of at most ``most`` characters; its type where it has no text."""
    return (' '.join(str(error).split()) or type(error).__name__)[:most]


def tellable(text: object) -> str:
    """Text on one line, safe for any terminal: what cannot be printed, or is not UTF-8, is escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in str(text))


def is_line(value: object) -> bool:
    """Whether a value is text on one line without control characters."""
    return isinstance(value, str) and value.isprintable()
