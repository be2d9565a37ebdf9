"""Which settings a search may vary, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
    Registry,
)

from ..config import arguments_of
from ..engine.entries import PLAIN, at
from ..engine.optim import FACTORS, GROUPS
from ..errors import UserError, unknown
from ..petl import DELTAS
from ..petl.delta import defaults_of, options_of
from ..petl.settings import PETL_KEYS
from ..spt.tuning import KEYS as SPT_KEYS

# what every trial must have in common, or nothing could be compared
FIXED = re.compile(
    r'(holdout|randomness|search|trials|work_dir|load_from|resume|env_cfg|visualizer|default_scope)(\..+)?'
    r'|train_cfg\.(?!max_epochs$).+|(val|test)_.+'
    # of the training data, whose list also says what is held out, only what is done to a sample may vary
    r'|train_dataloader\.dataset(?!(\.dataset)*\.pipeline(\.|$)).*|train_dataloader\.dataset\..+\.type|(.+\.)?num_classes'
    r'|model\.(base|type)(\..+)?|model\.petl\.spt\.(file|allocation)'
)
REGISTRIES = (MODELS, OPTIMIZERS, PARAM_SCHEDULERS, OPTIM_WRAPPERS, DATASETS, TRANSFORMS, HOOKS)
DELTA = r'model\.petl\.deltas\.\w+'
# mmengine's own settings of a constructor of optimizers, and ours
RULES = ('groups', 'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')


def check_key(cfg: Config, key: str) -> None:
    """Check that a dotted key is a setting of the config, or one that its owner takes.

    Raises:
        UserError: with the nearest name for one that is not, and for one that trials must have in common.
    """
    if FIXED.fullmatch(key):
        raise UserError(f'{key} cannot be searched: trials are compared with each other, so they share it.')
    place: Any = cfg
    parts = key.split('.')
    for depth, part in enumerate(parts):
        owner = '.'.join(parts[:depth])
        if isinstance(place, (list, tuple)):
            if not part.isdecimal() or int(part) >= len(place):
                raise UserError(f'{key} cannot be searched: {owner} is a list of {len(place)}, counted from 0.')
            place = place[int(part)]
        elif isinstance(place, (Mapping, Config)):
            valid = {*place, *(_accepted(owner, place))}
            if part not in valid:
                raise unknown(f'key {key} to search: {owner or "the config"} has no', part, valid)
            place = place.get(part) if part in place else _empty(owner, part)
        else:
            raise UserError(f'{key} cannot be searched: {owner} is {str(place)[:80]!r}, which has no settings.')
    if isinstance(place, Mapping):
        inside = ', '.join(sorted({*map(str, place), *map(str, _accepted(key, place))}))
        raise UserError(f'{key} cannot be searched as a whole: name a setting inside it, one of {inside}.')


def _empty(owner: str, part: str) -> Any:
    """Return what stands at a key that a config may have, and has not: a dict of settings, or nothing."""
    path = f'{owner}.{part}'
    return {} if _plain(path) is not None else None


def _plain(path: str) -> tuple[str, ...] | None:
    """Return the settings of a dict without a type that this project or mmengine knows; None for any other."""
    if path == 'optim_wrapper.paramwise_cfg':
        return RULES
    if path == 'optim_wrapper.paramwise_cfg.groups':
        return GROUPS
    if path.rpartition('.')[0] == 'optim_wrapper.paramwise_cfg.groups':
        return FACTORS
    if path.rpartition('.')[0] == 'optim_wrapper.paramwise_cfg.custom_keys':
        return FACTORS
    return {'model.petl': PETL_KEYS, 'model.petl.spt': SPT_KEYS}.get(path) or PLAIN.get(path)


def _accepted(owner: str, place: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the owner of a key takes beside what the config gives it."""
    yield from _plain(owner) or ()
    if owner == 'optim_wrapper':
        yield from ('paramwise_cfg', *arguments_of(OptimWrapper))
    kind = place.get('type')
    if kind is None:
        return
    if re.fullmatch(DELTA, owner):
        named = {delta.__name__: delta for delta in DELTAS}
        yield from options_of(named[kind]) if kind in named else ()
        return
    if (called := _class_of(kind)) is not None:
        yield from arguments_of(called)


def _class_of(kind: Any) -> Any:
    """Return the class that a type names, of whichever registry has it."""
    if not isinstance(kind, str):
        return kind
    return next(filter(None, (_registered(registry, kind) for registry in REGISTRIES)), None)


def _registered(registry: Registry, kind: str) -> Any:
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind)


def own_value(cfg: Config, key: str) -> Any:
    """Return what a setting is without a search: the config's value, or its owner's default; None if unknown."""
    value = _at(cfg, key)
    if value is None and re.fullmatch(r'optim_wrapper\.paramwise_cfg\.groups\.\w+\.\w+_mult', key):
        return 1.0
    owner, _, option = key.rpartition('.')
    if value is None and re.fullmatch(DELTA, owner):
        named = {delta.__name__: delta for delta in DELTAS}
        kind = named.get(at(cfg, f'{owner}.type'))
        return defaults_of(kind).get(option) if kind else None
    return value


def _at(cfg: Any, key: str) -> Any:
    """Return the value at a dotted key, through lists as well; None if it is not set."""
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)):
            cfg = cfg[int(part)] if part.isdecimal() and int(part) < len(cfg) else None
        else:
            cfg = cfg.get(part) if isinstance(cfg, (Mapping, Config)) else None
    return cfg


def check_keys(cfg: Config, keys: Mapping[str, Any]) -> None:
    """Check every key, and that none lies inside another; raises as :func:`check_key`."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')):
        for key in keys:
            check_key(cfg, key)
    for key in keys:
        inside = next((other for other in keys if other.startswith(f'{key}.')), None)
        if inside:
            raise UserError(f'{inside} lies inside {key}: search one of them.')
