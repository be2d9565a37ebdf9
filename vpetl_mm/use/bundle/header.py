"""Headers that strangers wrote: JSON read within bounds, and checks of values; needs torch alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from reprlib import Repr
from typing import Any

from ...errors import UserError, is_line, reason, tellable
from ...files import from_json, is_plain

LONGEST = 1 << 22  # of a header, in bytes
DEEPEST = 50
MOST_CLASSES = 100_000
SHA256 = re.compile(r'[0-9a-f]{64}')
BRIEF = Repr()
BRIEF.maxstring = BRIEF.maxother = 60


def brief(value: Any) -> str:
    """Return a stranger's value as an error shows it: short, on one line, safe for a terminal."""
    return tellable(BRIEF.repr(value))[:100]


def parsed(text: str) -> Any:
    """Return the content of JSON text, whose numbers must be finite and whose names must be unique."""
    if len(text) > LONGEST:
        raise UserError(f'its header is longer than {LONGEST:,} characters.')
    try:
        content = from_json(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    except ValueError as error:
        raise UserError(f'its header is not JSON ({reason(error)}).') from error
    level, depth = [content], 0
    while level:
        level = [part for value in level for part in _parts(value)]
        depth += 1
        if depth > DEEPEST:
            raise UserError('its header is nested too deeply.')
    return content


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f'{text[:20]} is not finite')
    return float(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError('a name appears twice')
    return dict(pairs)


def check_names(content: Any, newest: int, names: set[str]) -> None:
    """Check the format, and that nothing is missing or unknown.

    Args:
        content: of a header.
        newest: the newest format that can be read.
        names: of its parts.
    """
    version = content.get('format') if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise UserError('its header does not name its format.')
    if version > newest:
        raise UserError(f'its format is {version}, and this version reads format {newest}: update vpetl_mm.')
    if odd := sorted({*content} ^ names):
        raise UserError(f'{brief(odd[0])} is {"missing" if odd[0] in names else "unknown"} in its header.')


def is_name(value: Any) -> bool:
    """Tell whether a value is a name without a path."""
    return is_text(value) and value not in ('', '.', '..') and not {'/', '\\'} & {*value}


def is_text(value: Any) -> bool:
    """Tell whether a value is text on one short line."""
    return is_line(value) and len(value) < 1000


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number from 0 up."""
    return type(value) is int and 0 <= value < 2**63


def is_sha256(value: Any) -> bool:
    """Tell whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and bool(SHA256.fullmatch(value))


def is_percent(value: Any) -> bool:
    """Tell whether a value is a number from 0 to 100."""
    return type(value) in (int, float) and 0 <= value <= 100


def is_time(value: Any) -> bool:
    """Tell whether a value is a time in ISO format."""
    try:
        return is_text(value) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def are_classes(value: Any) -> bool:
    """Tell whether a value is a list of class names."""
    return isinstance(value, list) and 0 < len(value) <= MOST_CLASSES and all(map(is_text, value))


def are_deltas(value: Any) -> bool:
    """Tell whether a value is plain settings, by name."""
    return isinstance(value, dict) and is_plain(value) and all(isinstance(d, dict) for d in value.values())


def none_or(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check that also takes None."""
    return lambda value: value is None or right(value)


def has(**parts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check of a dict with exactly these parts."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == parts.keys() and all(parts[k](v) for k, v in value.items())
    )
