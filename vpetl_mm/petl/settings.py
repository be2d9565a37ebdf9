"""The ``petl`` dict of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError, unknown
from .checks import one_of

PETL_KEYS = ('deltas', 'train', 'attention', 'spt', 'gelu', 'fast')


def check_petl(petl: Any) -> dict[str, Any]:
    """Return the ``petl`` dict with its defaults, or raise :class:`UserError` saying what is wrong."""
    if not isinstance(petl, Mapping):
        raise UserError(f'petl must be a dict(deltas=..., train=[...]), got {petl!r}.')
    for key in petl:
        if key not in PETL_KEYS:
            raise unknown('petl key', key, PETL_KEYS)
    train, deltas = petl.get('train'), petl.get('deltas') or {}
    if not isinstance(train, (list, tuple)):
        raise UserError(f'petl needs train, a list of names such as ["head"] or ["all"]; got {train!r}.')
    if not isinstance(deltas, Mapping):
        raise UserError(f'petl.deltas must be a dict of name=dict(type=...), got {deltas!r}.')
    for name, spec in deltas.items():
        if spec is not None and not isinstance(spec, Mapping):
            raise UserError(f'petl.deltas.{name} must be a dict(type=...) or None, got {spec!r}.')
    gelu = one_of('petl.gelu', petl.get('gelu', 'exact'), ('exact', '8bit'))
    fast = one_of('petl.fast', petl.get('fast', True), (True, False))
    return dict(petl, deltas=deltas, gelu=gelu, fast=fast)
