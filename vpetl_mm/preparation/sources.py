"""The data sets known by name, and checks of the command's arguments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from . import cifar100, food101, hmdb51, ssv2, svhn, vtab1k
from .found import Found, PrepareArgs
from .place import Place

SOURCES: dict[str, Callable[[Path, Place, PrepareArgs], Found]] = {
    module.__name__.rpartition('.')[2]: module.read for module in (ssv2, hmdb51, cifar100, svhn, food101)
}
NAMES = (*SOURCES, vtab1k.NAME)


def check_name(name: str) -> None:
    """Refuse a name that a folder cannot have, or that is nearly a known one.

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
        raise UserError(f'{name!r} is not a name for a data set; use a-z, A-Z, 0-9, "_", "-" and ".".')


def check_args(args: PrepareArgs) -> None:
    """Raise :class:`UserError` for an option that is out of range or not for this data set."""
    check_name(args.name)
    for option, share in (('--val', args.val), ('--test', args.test)):
        if share is not None and not 0 < share < 1:
            raise UserError(f'{option} must lie between 0 and 1, got {share}.')
    if args.seed < 0:
        raise UserError(f'--seed must be at least 0, got {args.seed}.')
    if args.workers < 1:
        raise UserError(f'--workers must be at least 1, got {args.workers}.')
    if args.short_side is not None and args.short_side < 16:
        raise UserError(f'--short-side must be at least 16 pixels, got {args.short_side}.')
    if args.split and args.name != 'hmdb51':
        raise UserError(f'--split is for hmdb51, and this is {args.name}.')
    if args.short_side and args.name in ('cifar100', 'svhn', 'food101', vtab1k.NAME):
        raise UserError(f'--reencode is for videos, and {args.name} has images.')
    for option, value in (('--classes', args.classes), ('--test', args.test)):
        if value is not None and args.name in NAMES:
            raise UserError(f'{option} is for data of your own; those of {args.name} are fixed.')
