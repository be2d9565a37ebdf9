"""The settings of a run that is resumed: those its full state records, and those the config now gives."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from mmengine import Config

from ..errors import UserError, tellable
from .full_state import read_full_state
from .launch import place
from .record import json_safe

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
# where inputs lie (a hash proves the base), loader workers, recomputing for memory, logs and what is kept
NEUTRAL = re.compile(
    r'model\.base(\..+)?|model\.petl\.spt\.file|model\.backbone\.with_cp|optim_wrapper\.any_cpu'
    r'|(train|val)_dataloader(\.dataset)+\.(data_root|data_prefix(\..+)?|metainfo\.classes)'
    r'|(train|val)_dataloader\.(num_workers|persistent_workers|prefetch_factor|pin_memory|worker_init_fn)(\..+)?'
    r'|val_dataloader\.batch_size|default_hooks\.(?!checkpoint\.(save_best|rule)|early_stopping).+'
)
Path = tuple[str | int, ...]
UNSET = ast.Name('(not set)')  # equal to itself alone


def settings_of(text: str) -> dict[Path, Any]:
    """The settings in a config's text, by their paths. The text is parsed, and nothing in it is run or imported.

    Args:
        text: of ``Config.pretty_text``.

    Raises:
        UserError: when it is no such text.
    """
    try:
        body = ast.parse(text).body
        parts = {s.targets[0].id: _value(s.value) for s in body if _assigns(s) and s.targets[0].id in PARTS}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f'its config cannot be read ({type(error).__name__})') from error
    loader = parts.get('train_dataloader')
    if isinstance(loader, dict) and 'WholeStepsBatchSampler' in str(loader.get('batch_sampler')):
        del loader['batch_sampler']  # what a run makes of drop_last where it accumulates
        loader['drop_last'] = True
    return {path: value for path, value in _leaves(parts) if not NEUTRAL.fullmatch(dotted(path))}


def _assigns(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)


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


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, index))
    elif path[-1] == 'type' and isinstance(value, str):
        yield path, value.rpartition('.')[2]  # with a library's prefix or without
    elif path[-1] == 'ann_file' and isinstance(value, str):
        yield path, PurePath(value).name
    else:
        yield path, value


def dotted(path: Path) -> str:
    """A setting's name, as ``--cfg-options`` takes it."""
    return tellable('.'.join(map(str, path)))


def differing(cfg: Config, meta: Mapping[str, Any]) -> dict[Path, tuple[Any, Any]]:
    """What a full state records and ``cfg`` gives, where they differ.

    Args:
        cfg: the experiment.
        meta: of the full state. Where it records no number of processes, that is not compared.

    Raises:
        UserError: when its config cannot be read.
    """
    old, new = settings_of(str(meta.get('cfg', ''))), settings_of(cfg.pretty_text)
    if isinstance(meta.get('processes'), int):
        old['processes',], new['processes',] = meta['processes'], place(cfg)[1]
    pairs = {path: (old.get(path, UNSET), new.get(path, UNSET)) for path in {**old, **new}}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def listed(differences: Mapping[Path, tuple[Any, Any]]) -> str:
    """A line for each setting: its name, old -> new."""
    lines = (f'  - {dotted(p)}: {_short(old)} -> {_short(new)}' for p, (old, new) in sorted_by_name(differences))
    return '\n'.join(lines)


def sorted_by_name(differences: Mapping[Path, tuple[Any, Any]]) -> list[tuple[Path, tuple[Any, Any]]]:
    return sorted(differences.items(), key=lambda item: [str(part) for part in item[0]])


def _short(value: Any) -> str:
    text = UNSET.id if value is UNSET else ascii(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def with_settings(cfg: Config) -> tuple[Config, str | None]:
    """The config that a run continues with, and why it cannot before the user decides; ``cfg`` itself for a new run.

    ``cfg.resume_with`` says which settings to take where the full state records others: ``'old'``, ``'new'`` or
    neither. ``given_options`` become those of the whole run.

    Raises:
        UserError: when the old ones cannot be taken, or nothing is left to train.
    """
    if not cfg.get('resume'):
        return cfg, None
    file, meta = cfg.load_from, read_full_state(cfg.load_from)['meta']
    try:
        differences = differing(cfg, meta)
    except UserError as error:
        raise UserError(f'{file} is broken: {error}.') from error
    if cfg.get('resume_with') == 'old':
        cfg = _with_old(cfg, meta, differences)
    last = cfg.train_cfg.get('max_epochs')
    if isinstance(last, int) and meta['epoch'] > last and (cfg.get('resume_with') or not differences):
        raise UserError(f'Nothing is left to train: {file} is from after epoch {meta["epoch"]} of {last}.')
    cfg = copy.deepcopy(cfg)
    cfg.given_options = _options(cfg, meta, differences)
    if not differences or cfg.get('resume_with'):
        return cfg, None
    return cfg, (
        f'{file} was trained with other settings than the config and the command now give (old -> new):\n'
        f'{listed(differences)}\n'
        'Say which to use: --resume-with old or --resume-with new. Or start another run, without --resume and in '
        'another --work-dir.'
    )


def _with_old(cfg: Config, meta: Mapping[str, Any], differences: Mapping[Path, tuple[Any, Any]]) -> Config:
    """The config with the recorded numbers. Names are never taken out of a file, as classes are built by them."""
    cfg, taken = copy.deepcopy(cfg), set()
    for path, (old, _) in sorted_by_name(differences):
        parts = old if isinstance(old, list) else [old]
        plain = old is UNSET or all(part is None or isinstance(part, (bool, int, float)) for part in parts)
        if plain and path[0] != 'processes' and not any(path[:n] in taken for n in range(len(path))):
            _put(cfg, path, old)
            taken.add(path)
    left = differing(cfg, meta)
    if left:
        raise UserError(
            f'--resume-with old takes numbers from {cfg.load_from}, and these it cannot take (old -> new):\n'
            f'{listed(left)}\nGive them in the config or the command, as they were.'
        )
    return cfg


def _put(cfg: Config, path: Path, value: Any) -> None:
    """Set a value, or remove it and what is then empty; not where the config has no such place."""
    places: list[Any] = [cfg]
    try:
        for part in path[:-1]:
            places.append(places[-1][part])
        if value is not UNSET:
            places[-1][path[-1]] = value
            return
        for place_, part in zip(reversed(places), reversed(path), strict=True):
            if isinstance(place_, list):
                return
            del place_[part]
            if place_:
                return
    except (KeyError, IndexError, TypeError):
        return


def _options(cfg: Config, meta: Mapping[str, Any], differences: Mapping[Path, tuple[Any, Any]]) -> dict[str, Any]:
    """The ``--cfg-options`` that are true of the whole run; what is new from now on has the epoch in its name."""
    changed = {dotted(path): new for path, (_, new) in differences.items()}
    given, recorded = cfg.get('given_options', {}), meta.get('options')
    recorded = recorded if isinstance(recorded, dict) else {}
    late = [*changed, *(re.sub(r'^after_epoch_\d+\.', '', k) for k in recorded if k.startswith('after_epoch_'))]
    kept = {k: v for k, v in given.items() if not any(c == k or c.startswith(f'{k}.') for c in late)}
    options = {**kept, **recorded}
    if cfg.get('resume_with') == 'new':
        options |= {
            f'after_epoch_{meta["epoch"]}.{k}': None if v is UNSET else json_safe(v) for k, v in changed.items()
        }
    return json_safe(options)
