"""The settings in a config's text, read without running it, and those in which two configs differ."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from mmengine import Config

from ..errors import UserError, tellable
from .launch import rank_and_world_size

# the parts of a config that decide what a run computes
PARTS = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'train_cfg',
    'val_cfg',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'randomness',
    'custom_hooks',
    'default_hooks',
    'cache_features',
    'model_wrapper_cfg',
    'sync_bn',
)
# what may change: where inputs lie (a hash proves the base), workers, recomputing for memory, logs, what is kept
MAY_CHANGE = re.compile(
    r'model\.base(\..+)?|model\.petl\.spt\.file|model\.backbone\.with_cp|optim_wrapper\.any_cpu'
    r'|(train|val)_dataloader(\.dataset)+\.(data_root|data_prefix(\..+)?|metainfo\.classes)'
    r'|(train|val)_dataloader\.(num_workers|persistent_workers|prefetch_factor|pin_memory|worker_init_fn)(\..+)?'
    r'|val_dataloader\.batch_size|default_hooks\.(?!checkpoint\.(save_best|rule)|early_stopping).+'
)
Keys = tuple[str | int, ...]  # the keys and indices that lead to a setting
Differences = dict[Keys, tuple[Any, Any]]  # by setting: the old value and the new one
UNSET = ast.Name('(not set)')  # equal to itself alone


def read_settings(text: str) -> dict[str, Any]:
    """Read a ``Config.pretty_text`` into its parts: dicts, lists, plain values. Nothing in it is run or imported.

    Raises:
        UserError: when it cannot be parsed.
    """
    parts: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name), *_], value=value) if not name.startswith('_'):
                    parts[name] = _value(value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f'its config cannot be read ({type(error).__name__})') from error
    return parts


def parse_settings(text: str) -> dict[Keys, Any]:
    """Parse a ``Config.pretty_text`` into the settings that decide what a run computes.

    Raises:
        UserError: when it cannot be parsed.
    """
    parts = {name: part for name, part in read_settings(text).items() if name in PARTS}
    loader = parts.get('train_dataloader')
    if isinstance(loader, dict) and 'WholeStepsBatchSampler' in str(loader.get('batch_sampler')):
        del loader['batch_sampler']  # which a run that accumulates gradients uses instead of drop_last
        loader['drop_last'] = True
    return {keys: value for keys, value in leaves(parts) if not MAY_CHANGE.fullmatch(dotted(keys))}


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Dict(keys=keys, values=values):
            return {str(_value(k)): _value(v) for k, v in zip(keys, values, strict=True) if k is not None}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=parts):
            return {str(part.arg): _value(part.value) for part in parts}
    return ast.unparse(node)  # such as inf: compared as text


def leaves(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield the settings inside ``value``, each with the keys that lead to it."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, (*keys, key))
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for index, part in enumerate(value):
            yield from leaves(part, (*keys, index))
    elif keys[-1] == 'type' and isinstance(value, str):
        yield keys, value.rpartition('.')[2]  # with a library's prefix or without
    elif keys[-1] == 'ann_file' and isinstance(value, str):
        yield keys, PurePath(value).name
    else:
        yield keys, value


def dotted(keys: Keys) -> str:
    """Return a setting's name, as ``--cfg-options`` takes it."""
    return tellable('.'.join(map(str, keys)))


def differing(cfg: Config, meta: Mapping[str, Any]) -> Differences:
    """Compare the settings that a full state records with those of ``cfg``; sorted by name.

    The number of processes is compared if the full state has it. Raises as :func:`parse_settings`.
    """
    old, new = parse_settings(str(meta.get('cfg', ''))), parse_settings(cfg.pretty_text)
    if isinstance(meta.get('processes'), int):
        old['processes',], new['processes',] = meta['processes'], rank_and_world_size(cfg)[1]
    names = sorted({*old, *new}, key=lambda keys: [str(key) for key in keys])
    pairs = {keys: (old.get(keys, UNSET), new.get(keys, UNSET)) for keys in names}
    return {keys: pair for keys, pair in pairs.items() if pair[0] != pair[1]}


def listed(differences: Differences) -> str:
    """Return a line for each setting: its name, old -> new."""
    return '\n'.join(f'  - {dotted(k)}: {shown(old)} -> {shown(new)}' for k, (old, new) in differences.items())


def shown(value: Any) -> str:
    """Return a setting's value in at most 80 characters of ASCII."""
    text = UNSET.id if value is UNSET else ascii(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
