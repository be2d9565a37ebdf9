"""Deltas on any model that the place table knows, in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UserError, unknown
from .delta import Delta
from .layouts import LAYOUTS, find, found, key_of
from .placing import take_off
from .plan import Plan, Tuning
from .settings import check_petl

HEADS = ('head', 'classifier', 'heads', 'fc', 'cls_head')  # timm, transformers, torchvision, and others
POOLING = ('fc_norm', 'pooler')  # of transformers, in front of the classifier; no backbone's checkpoint has them
# classes of torch around a model, or that a model has become -> what to do
WRAPPERS = {
    'OptimizedModule': 'torch.compile',
    'DistributedDataParallel': 'DistributedDataParallel',
    'DataParallel': 'DataParallel, whose replicas would ask the deltas of the first (use DistributedDataParallel)',
    'FullyShardedDataParallel': 'FullyShardedDataParallel',
    'FSDPModule': 'fully_shard',
}


def adapt(
    model: nn.Module,
    deltas: Mapping[str, Mapping[str, Any] | None] | None = None,
    train: Sequence[str] = ('head',),
    head: str | Sequence[str] | None = None,
    spt: Tuning | None = None,
) -> Plan:
    """Freeze a model and put deltas on it, in place.

    Args:
        model: holds a backbone that the place table knows, at any depth, with its weights loaded. Once
            adapted it serves one thread at a time.
        deltas: name -> ``dict(type=..., at=..., **options)``, as ``petl.deltas`` in a config. Defaults to none.
        train: names of existing weights to train too, as ``petl.train``. Defaults to the head.
        head: the path of the head, or of several, in ``model``. Defaults to what timm says, else the first there is
            of ``head``, ``classifier``, ``heads``, ``fc`` and ``cls_head``.
        spt: what SPT tunes, such as ``vpetl_mm.spt.plain.allocate`` returns. Defaults to None, nothing.

    Returns:
        The plan: ``parameters()`` for the optimizer, ``count()``, ``state_dict()``, ``load_state_dict()`` and
        ``merge()`` of what is trained.

    Raises:
        UserError: for a model that the table does not know (``tools/host.py`` proposes an entry), that is wrapped,
            quantised or adapted already, and for a name, place or option that does not exist or matches nothing. The
            model is then unchanged.
    """
    check_plain(model)
    where = found(model)
    _check_alone(model, where.path)
    petl = check_petl(dict(deltas=deltas or {}, train=train))
    heads = _heads(model, head)
    if 'head' in train and not heads:
        raise UserError(f'{type(model).__name__} has no head of a known name; pass head=, of: {_children(model)}.')
    trained = {p: p.requires_grad for p in model.parameters()}
    try:
        return Plan(model, where.path, heads, petl['deltas'], petl['train'], delta_type, spt)
    except Exception:
        take_off(where.layout, model)
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)
        raise


def _check_alone(model: nn.Module, path: str) -> None:
    """Raise :class:`UserError` where there is a second backbone beside the one at ``path``."""
    for other, module in model.named_modules():
        apart = other and not f'{other}.'.startswith(f'{path}.') and not f'{path}.'.startswith(f'{other}.')
        if path and apart and any(key_of(cls) in LAYOUTS for cls in type(module).__mro__):
            raise UserError(
                f'{type(model).__name__} has two backbones, {path} and {other}; adapt each as a model of its own.'
            )


def check_plain(model: nn.Module) -> None:
    """Raise :class:`UserError` for what is no model, or one that is wrapped, quantised or adapted already."""
    if not isinstance(model, nn.Module):
        raise UserError(f'A model is an nn.Module, got {model!r:.80}.')
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__name__ in WRAPPERS and cls.__module__.startswith('torch.'):
                raise UserError(
                    f'The model is wrapped by {WRAPPERS[cls.__name__]}: adapt the plain model first, then wrap it.'
                )
        if isinstance(module, Delta):
            raise UserError(
                f'{type(model).__name__} has deltas already: name all of them in one call, on a new model.'
            )
        _check_layer(module)


def _check_layer(module: nn.Module) -> None:
    """Refuse a quantised layer: its weight is packed, or holds whole numbers."""
    weight = getattr(module, 'weight', None)
    packed = 'quant' in type(module).__module__ and not isinstance(weight, Tensor)
    whole = isinstance(module, nn.Linear) and not (isinstance(weight, Tensor) and weight.is_floating_point())
    if packed or whole:
        raise UserError(
            f'The model is quantised ({type(module).__module__}.{type(module).__name__}), and deltas read weights '
            'as floating-point numbers; load it without quantisation.'
        )


def _heads(model: nn.Module, head: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the paths of the heads that were given, or of those that the model has."""
    if head is None:
        return heads_of(model)
    if not isinstance(head, (str, list, tuple)):
        raise UserError(f'head: the path of the head, or a list of paths, got {head!r:.80}.')
    heads, there = (head,) if isinstance(head, str) else tuple(head), dict(model.named_modules())
    for name in heads:
        if not name or name not in there:
            raise UserError(f'head: {type(model).__name__} has no {name!r}; it has: {_children(model)}.')
    return heads


def heads_of(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of a model's heads, () for none: transformers' own have their head outside the backbone."""
    where = find(model)
    if where is not None and where.key.startswith('transformers.') and not where.path:
        return ()
    told = (getattr(model, 'default_cfg', None) or {}).get('classifier') or ()
    named, there = [told] if isinstance(told, str) else [*told], dict(model.named_modules())

    def own(names: Sequence[str]) -> list[str]:
        return [n for n in names if n in there and next(there[n].parameters(), None) is not None]

    # without classes timm's own is an Identity, beside which its head may hold a norm
    if named and all(n in there for n in named):
        return tuple(own(named))
    first = own(HEADS)[:1]
    pooled = first and where is not None and where.key.startswith('transformers.')
    return (*own(POOLING), *first) if pooled else tuple(first)


def _children(model: nn.Module) -> str:
    return ', '.join(name for name, _ in model.named_children())


def delta_type(name: str | type) -> type[Delta]:
    """Return the class of a delta: itself, or the one of this name in ``DELTAS``."""
    from . import DELTAS

    named = {cls.__name__: cls for cls in DELTAS}
    if isinstance(name, type) and issubclass(name, Delta):
        return name
    if not isinstance(name, str) or name not in named:
        raise unknown('delta type', name, named)
    return named[name]
