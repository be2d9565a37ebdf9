"""Deltas on any model that the place table knows, in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import UserError, unknown
from .delta import Delta
from .layouts import found
from .plan import Plan, Tuning, check_petl

HEADS = ('head', 'classifier', 'heads', 'fc', 'cls_head')  # timm, transformers, torchvision, and others
POOLING = ('fc_norm', 'pooler')  # of transformers, in front of the classifier; no backbone's checkpoint has them


def adapt(
    model: nn.Module,
    deltas: Mapping[str, Mapping[str, Any] | None] | None = None,
    train: Sequence[str] = ('head',),
    head: str | Sequence[str] | None = None,
    spt: Tuning | None = None,
) -> Plan:
    """Freeze a model and put deltas on it, in place.

    Args:
        model: holds a backbone that the place table knows, at any depth, with its weights loaded.
        deltas: name -> ``dict(type=..., at=..., **options)``, as ``petl.deltas`` in a config. Defaults to none.
        train: names of existing weights to train too, as ``petl.train``. Defaults to the head.
        head: the path of the head, or of several, in ``model``. Defaults to what timm says, else the first there is
            of ``head``, ``classifier``, ``heads``, ``fc`` and ``cls_head``.
        spt: what SPT tunes. Defaults to None, nothing.

    Returns:
        The plan: ``parameters()`` for the optimizer, ``count()``, ``state_dict()`` and ``load_state_dict()`` of what
        is trained.

    Raises:
        UserError: for a model that the table does not know (``tools/host.py`` proposes an entry), and for a name,
            place or option that does not exist or matches nothing.
    """
    where = found(model)
    petl = check_petl(dict(deltas=deltas or {}, train=train))
    heads = (
        _heads_of(model, where.key, where.path) if head is None else (head,) if isinstance(head, str) else tuple(head)
    )
    for name in heads:
        if not _has(model, name):
            raise UserError(f'head: {type(model).__name__} has no {name!r}; it has: {_children(model)}.')
    if 'head' in train and not heads:
        raise UserError(f'{type(model).__name__} has no head of a known name; pass head=, of: {_children(model)}.')
    return Plan(model, where.path, heads, petl['deltas'], petl['train'], _delta_type, spt)


def _heads_of(model: nn.Module, key: str, path: str) -> tuple[str, ...]:
    """Return the paths of a model's heads, () for none: transformers' own have their head outside the backbone."""
    if key.startswith('transformers.') and not path:
        return ()
    told = (getattr(model, 'default_cfg', None) or {}).get('classifier') or ()
    named, there = [told] if isinstance(told, str) else [*told], dict(model.named_modules())

    def own(names: Sequence[str]) -> list[str]:
        return [n for n in names if any(True for _ in there.get(n, nn.Identity()).parameters())]

    # without classes timm's own is an Identity, beside which its head may hold a norm
    if named and all(n in there for n in named):
        return tuple(own(named))
    first = own(HEADS)[:1]
    return (*own(POOLING), *first) if first and key.startswith('transformers.') else tuple(first)


def _has(model: nn.Module, path: str) -> bool:
    return path in dict(model.named_modules())


def _children(model: nn.Module) -> str:
    return ', '.join(name for name, _ in model.named_children())


def _delta_type(name: str | type) -> type[Delta]:
    from . import DELTAS

    named = {cls.__name__: cls for cls in DELTAS}
    if isinstance(name, type) and issubclass(name, Delta):
        return name
    if name not in named:
        raise unknown('delta type', name, named)
    return named[name]
