"""The data sets that are known by name, and what may be asked of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from . import cifar100, food101, hmdb51, ssv2, svhn, vtab1k
from .found import Found, Request
from .place import Place

SOURCES: dict[str, Callable[[Path, Place, Request], Found]] = {
    'ssv2': ssv2.read,
    'hmdb51': hmdb51.read,
    'cifar100': cifar100.read,
    'svhn': svhn.read,
    'food101': food101.read,
}
NAMES = (*SOURCES, vtab1k.NAME)


def check_name(name: str) -> None:
    """Refuse a name that is no folder's, or that is nearly a known one.

    Raises:
        UserError: with the known name.
    """
    near = difflib.get_close_matches(name.casefold(), NAMES, n=1, cutoff=0.75)
    if name not in NAMES and near:
        raise UserError(
            f'Unknown data set {name!r}; did you mean {near[0]!r}? A name for your own data must differ more from '
            f'{", ".join(NAMES)}.'
        )
    if not re.fullmatch(r'[A-Za-z0-9][\w.-]*', name, re.ASCII) or name == 'check':
        raise UserError(f'{name!r} is no name for a data set; a-z, A-Z, 0-9, "_", "-" and "." may be in one.')


def check_request(request: Request) -> None:
    """Raise :class:`UserError` for an option that is out of range, or not for this data set."""
    check_name(request.name)
    for option, share in (('--val', request.val), ('--test', request.test)):
        if share is not None and not 0 < share < 1:
            raise UserError(f'{option} must lie between 0 and 1, got {share}.')
    if request.seed < 0:
        raise UserError(f'--seed must be at least 0, got {request.seed}.')
    if request.workers < 1:
        raise UserError(f'--workers must be at least 1, got {request.workers}.')
    if request.short_side is not None and request.short_side < 16:
        raise UserError(f'--short-side must be at least 16 pixels, got {request.short_side}.')
    if request.split and request.name != 'hmdb51':
        raise UserError(f'--split is for hmdb51, and this is {request.name}.')
    if request.short_side and request.name in ('cifar100', 'svhn', 'food101', vtab1k.NAME):
        raise UserError(f'--reencode is for videos, and {request.name} has images.')
    for option, value in (('--classes', request.classes), ('--test', request.test)):
        if value is not None and request.name in NAMES:
            raise UserError(f'{option} is for data of your own; the classes and lists of {request.name} are fixed.')
